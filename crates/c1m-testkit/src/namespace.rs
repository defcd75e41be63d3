//! A test in a network namespace of its own.

use std::{fs, os::unix::fs::MetadataExt as _, process::Command};

/// Two ends of one link, each with a link-local address that nothing else has, ready at once: without the check for duplicates an address can be bound
/// from the start. The dash in the names is where a range of ports has one too.
pub const LINK: &str = "
    ip link set lo up
    ip link add c1m-far type veth peer name c1m-near
    for side in far near; do ip link set c1m-$side addrgenmode none; ip link set c1m-$side up; done
    ip address add fe80::1/64 dev c1m-far nodad
    ip address add fe80::2/64 dev c1m-near nodad
    ip address add fd00::2/64 dev c1m-near nodad";

/// Set in the namespace.
const OWN_NETWORK: &str = "C1M_TEST_OWN_NETWORK";

/// Whether this is a network namespace of the test's own, after `set_up`, a script. Where it is not, the test `name` is run again in one, and has to pass.
/// Who is not root is root of a user namespace there.
#[track_caller]
pub fn is_own_network(name: &str, set_up: &str) -> bool {
    if std::env::var_os(OWN_NETWORK).is_some() {
        return true;
    }
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let own: &[&str] = if is_root { &["--net"] } else { &["--net", "--map-root-user"] };
    let script = format!("set -e\n{set_up}\nexec \"$0\" --exact \"$1\" --nocapture");
    let output = Command::new("unshare")
        .args(own)
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(OWN_NETWORK, "1")
        .output()
        .unwrap();
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // A name that no test has runs none.
    assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
    false
}
