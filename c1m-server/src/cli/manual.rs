//! What `--help` and the manual pages say besides the flags.
//!
//! A line that begins at the margin and ends in a colon is a section. In it, what is indented by two is a term, and what is indented further says what
//! the term means.

pub(super) const SERVE: &str = "\
Exit status:
  0
      done
  2
      wrong usage
  3
      the environment refused: a privilege, the kernel, a limit, a port that is taken, an output that can't
      be written or that nobody reads
  4
      internal
  129, 130, 131, 143
      SIGHUP, SIGINT, SIGQUIT or SIGTERM came while it was ending already; the first one ends it in order
Files:
  /sys/kernel/btf/vmlinux
      the types of the running kernel, which --trace reads
  /proc/sys/net/ipv4/tcp_mem
      low, pressure and high, in pages, for the whole host
Examples:
  c1m-server --listen 0.0.0.0:8000 --max-connections 1m
      hold a million connections, whatever ulimit -n says; needs no root
  c1m-server --trace --listen 127.0.0.1:8000 --report run.html
      say which limit is crossed by which connection, and write a page about the run
  c1m-server --trace --dry-run
      which attach method each probe uses on this kernel, and why a better one is not available
See also:
  c1m-client(1), c1m-server-watch(1), c1m-server-holders(1), c1m-server-states(1),
  c1m-server-doctor(1), c1m-server-report(1), tcp(7), epoll(7), ss(8)";

pub(super) const WATCH: &str = "\
Exit status:
  0
      done; with --cmd: no limit was hit, and the command succeeded
  1
      with --cmd: a limit was hit
  2
      wrong usage
  3
      the environment refused: a privilege, the kernel, an output that can't be written or that nobody
      reads
  4
      internal
  5
      with --cmd: no limit was hit, and the command itself failed
  129, 130, 131, 143
      SIGHUP, SIGINT, SIGQUIT or SIGTERM came while it was ending already; the first one ends it in order
Files:
  /sys/kernel/btf/vmlinux
      the types of the running kernel
  /usr/lib/systemd/system/c1m-watch.service
      a watch of the host's own network namespace as a service, with CAP_BPF and CAP_PERFMON alone. A
      drop-in that gives it CAP_SYS_PTRACE and CAP_SYS_ADMIN besides (AmbientCapabilities=,
      CapabilityBoundingSet=), allows setns in SystemCallFilter=, sets RestrictNamespaces=net, and runs it
      without --netns, counts in the network namespaces of containers as well
Examples:
  c1m-server watch
      the whole host, live
  c1m-server watch --pid $(cat /run/nginx.pid)
      its ports, its descriptors, its cgroup
  c1m-server watch --json --output run.jsonl --port 443 --duration 10m
      JSON lines into a file, for c1m-server-report(1)
  c1m-server watch --cmd ./load-test.sh
      fail when the test hits a limit
  systemctl enable --now c1m-watch; journalctl --unit c1m-watch --output cat
      from now on, into the journal
See also:
  c1m-server(1), c1m-server-holders(1), c1m-server-report(1), tcp(7), journalctl(1),
  capabilities(7)";

pub(super) const HOLDERS: &str = "\
Exit status:
  0
      done
  2
      wrong usage
  3
      the environment refused, or the output can't be written
  4
      internal
Files:
  /proc/net/sockstat
      the kernel's own page count, to check completeness
Examples:
  c1m-server holders
      by process: those with the most pages first
  c1m-server holders --by cgroup --top 5
      by control group
  c1m-server holders --netns inode:4026531840 --by port
      in one network namespace, as lsns(8) shows it
See also:
  c1m-server(1), c1m-server-states(1), ss(8), lsns(8), sock_diag(7)";

pub(super) const STATES: &str = "\
Exit status:
  0
      done
  2
      wrong usage
  3
      the environment refused, or the output can't be written
  4
      internal
Examples:
  c1m-server states
      all network namespaces of the host
  c1m-server states --netns self --json
      this network namespace, every row
See also:
  c1m-server(1), c1m-server-holders(1), ss(8), sock_diag(7)";

pub(super) const REPORT: &str = "\
Exit status:
  0
      done
  2
      wrong usage, or a line that is not c1m's
  3
      the environment refused, or the output can't be written
  4
      internal
Examples:
  c1m-server report run.jsonl -o run.html
      a page of what was seen, without anything from the network
  c1m-server report --svg run.jsonl -o run.svg
      the plots alone
  c1m-server report --svg --plot connections --run 2 run.jsonl -o act2.svg
      one plot, of the second run in the file
See also:
  c1m-server(1), c1m-server-watch(1)";

pub(super) const DOCTOR: &str = "\
Exit status:
  0
      all connections fit
  1
      a limit is met before the last connection, or a line of a file of --judge harms or is refused
  2
      wrong usage
  3
      not known from here, or the environment refused
  4
      internal
  129, 130, 131, 143
      SIGHUP, SIGINT, SIGQUIT or SIGTERM came while it was ending already; the first one ends it in order
Files:
  /etc/sysctl.d, /etc/security/limits.d, /etc/systemd/system
      where the files that --emit writes belong; it writes them below another folder, and replaces none
      without --force
  /etc/sysctl.d, /run/sysctl.d, /usr/local/lib/sysctl.d, /usr/lib/sysctl.d, /etc/sysctl.conf
      configured settings, in their order of precedence; harmful ones are shown
  /proc/sys
      what --apply changes, and puts back at its end
  /run/c1m/sysctl.json
      the values before that, until they are back; --restore puts back what a run that was killed left
Examples:
  c1m-server doctor --connections 1m
      each limit: what it is, what is needed, the connection at which it is met
  c1m-server doctor --connections 1m --queued-bytes 8K --rate 50k --json
      with 8 KiB unread on each, at 50,000 new connections per second
  c1m-server doctor --connections 1m --judge /etc/sysctl.d/99-tuning.conf
      what of these settings helps, does nothing, harms, or is refused by the kernel
  c1m-server doctor --connections 1m --judge /etc/sysctl.d /usr/lib/sysctl.d
      the same of folders; - is standard input
  c1m-server doctor --connections 1m --apply
      change what is needed, after asking, until Ctrl-C
See also:
  c1m-server(1), c1m-client(1), tcp(7), sysctl(8), limits.conf(5), systemd.exec(5)";
