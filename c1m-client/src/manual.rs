//! What `--help` and the manual page say besides the flags, in the form of
//! `c1m-server/src/cli/manual.rs`.

pub(crate) const CLIENT: &str = "\
Exit status:
  0
      done
  1
      fewer connections than asked for, such as where nobody listens; every connection lost, no answer for
      --give-up, or a requirement that does not hold. Also when standard output was closed by its reader, which changes no exit code
  2
      wrong usage, or a plan that can't be, such as one to a target without a route
  3
      the environment refused: a limit with --strict, the address of --metrics-addr, the connection with which
      --pin measures, or a standard output that can't be written or that nobody reads in time
  4
      internal
  129, 130, 131, 143
      SIGHUP, SIGINT, SIGQUIT or SIGTERM came while it was ending already; the first one ends it in order
Files:
  /proc/sys/net/ipv4/ip_local_port_range
      the ports that one source address has for connections to one destination
Examples:
  c1m-client --connect 127.0.0.1:8000 --connections 1m --idle
      the handshake of each, and nothing else
  c1m-client --connect 127.0.0.1:8000 --connections 1m --pin 7.53K
      each leaves 7.53 KiB of tcp_mem charged, on average
  c1m-client --connect [::1]:8000 --connections 64k --heartbeat 10s --hold 60s
      each asks once in ten seconds, for a minute
  c1m-client --connect 192.0.2.10:80 --connections 64k --request /index.html --sample 1000 --hold 0s
      another server, and whether a thousand of its connections still answer right
  c1m-client --connect 127.0.0.1:8000 --connections 64k --hold 10s --require 'connect_p99<50ms'
      pass or fail
See also:
  c1m-client-merge(1), c1m-server(1), c1m-server-doctor(1), tcp(7), ip(7)";

pub(crate) const MERGE: &str = "\
Exit status:
  0
      done
  1
      fewer connections than asked for, or a requirement that does not hold
  2
      wrong usage, or results that don't belong together
  3
      a file can't be read, or standard output not be written
  4
      internal
Examples:
  c1m-client merge part-*.jsonl --require connected==1024000
      one result of all parts of a run
See also:
  c1m-client(1)";
