use super::*;

/// A tree of cgroups in a folder, and the mounts that show it.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, level: &str, files: &[(&str, &str)]) {
        let folder = self.0.path().join(level);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    /// Each of version, its folder below the tree, and the mount's root.
    fn mounted(&self, mounts: &[(Version, &str, &str)]) -> Hierarchies {
        let mount = |(version, folder, root): &(Version, &str, &str)| Mount {
            version: *version,
            root: root.into(),
            folder: self.0.path().join(folder),
        };
        Hierarchies(mounts.iter().map(mount).collect())
    }

    /// A process with 10 bytes in `outer/inner`, and 850 of 1,000 above it.
    fn unified(&self, below: &str) {
        self.write(
            &format!("{below}outer"),
            &[
                ("memory.current", "900\n"),
                ("memory.max", "1000\n"),
                ("memory.high", "max\n"),
                ("memory.stat", "inactive_file 50\n"),
            ],
        );
        self.write(
            &format!("{below}outer/inner"),
            &[
                ("memory.current", "10\n"),
                ("memory.max", "max\n"),
                ("memory.high", "100\n"),
                ("memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n"),
                ("cgroup.procs", ""),
            ],
        );
    }
}

const LEVEL: Level = Level { used_bytes: 850, max_bytes: 1000 };

#[test]
fn version_2_takes_the_tightest_level_and_its_own_events() {
    let tree = Tree::new();
    tree.unified("");
    let cgroup = tree.mounted(&[(Version::Two, "", "/")]).of("0::/outer/inner\n").unwrap();
    assert_eq!((cgroup.used_bytes, cgroup.max), (Some(850), Some(LEVEL)));
    assert_eq!(cgroup.high, Some(Level { used_bytes: 10, max_bytes: 100 }));
    assert_eq!(cgroup.headroom(), Some(90), "memory.high is nearer than memory.max");
    assert_eq!((cgroup.oom, cgroup.oom_kill), (Some(2), Some(1)));
    assert_eq!((cgroup.tcp_failed, cgroup.sock_throttled), (None, None));
    assert!(cgroup.counts_sockets);
}

#[test]
fn a_level_without_the_controller_is_charged_above() {
    let tree = Tree::new();
    tree.unified("");
    tree.write("outer/inner/leaf", &[("cgroup.procs", "")]);
    let cgroup = tree.mounted(&[(Version::Two, "", "/")]).of("0::/outer/inner/leaf\n").unwrap();
    assert_eq!((cgroup.max, cgroup.oom), (Some(LEVEL), Some(2)));
}

#[test]
fn version_1_has_a_limit_for_sockets() {
    let tree = Tree::new();
    tree.write(
        "memory/a/b",
        &[
            ("memory.usage_in_bytes", "500\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 100\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            ("memory.kmem.tcp.usage_in_bytes", "7\n"),
            ("memory.kmem.tcp.limit_in_bytes", "9223372036854771712\n"),
            ("memory.kmem.tcp.failcnt", "4\n"),
        ],
    );
    let mounts = tree.mounted(&[(Version::One, "memory", "/"), (Version::Two, "unified", "/")]);
    let membership = "5:devices:/\n4:cpu,memory:/a/b\n0::/\n";
    let cgroup = mounts.of(membership).unwrap();
    assert_eq!((cgroup.used_bytes, cgroup.max, cgroup.sockets), (Some(400), None, None));
    assert_eq!((cgroup.oom, cgroup.oom_kill, cgroup.tcp_failed), (None, Some(3), Some(4)));
    tree.write(
        "memory/a",
        &[
            ("memory.usage_in_bytes", "600\n"),
            ("memory.limit_in_bytes", "1600\n"),
            ("memory.kmem.tcp.usage_in_bytes", "9\n"),
            ("memory.kmem.tcp.limit_in_bytes", "20\n"),
        ],
    );
    let cgroup = mounts.of(membership).unwrap();
    assert_eq!(cgroup.sockets, Some(Level { used_bytes: 9, max_bytes: 20 }));
    assert_eq!(cgroup.headroom(), Some(1000), "sockets' queues are counted apart");
    assert!(!cgroup.counts_sockets);
}

/// Version 2 is mounted for its processes, the memory controller is in version 1; or the other way
/// around.
#[test]
fn in_a_hybrid_the_hierarchy_with_the_controller_counts() {
    let tree = Tree::new();
    tree.write("memory/a", &[("memory.usage_in_bytes", "5\n"), ("memory.limit_in_bytes", "9\n")]);
    tree.write("unified/a", &[("cgroup.procs", "")]);
    let mounts = tree.mounted(&[(Version::Two, "unified", "/"), (Version::One, "memory", "/")]);
    let membership = "4:memory:/a\n0::/a\n";
    assert_eq!(mounts.of(membership).unwrap().headroom(), Some(4));
    tree.unified("unified/");
    assert_eq!(mounts.of("0::/outer/inner\n").unwrap().headroom(), Some(90));
}

/// Seen from inside a private cgroup namespace whose root is /outer: a path is told relative to it.
#[test]
fn from_inside_a_namespace_a_process_outside_of_it_is_unknown() {
    let tree = Tree::new();
    tree.unified("");
    let inside = tree.mounted(&[(Version::Two, "outer", "/")]);
    assert_eq!(inside.of("0::/inner\n").unwrap().oom, Some(2));
    for outside in ["0::/..\n", "0::/../other\n", "0::/../../x\n"] {
        assert_eq!(inside.of(outside), None, "{outside}");
    }
    // The host's own mount, shown inside, tells both.
    let both = tree.mounted(&[(Version::Two, "", "/..")]);
    assert_eq!(both.of("0::/../outer/inner\n").unwrap().oom, Some(2));
}

/// Without a namespace the path is the host's, and the container's cgroup is what is mounted.
#[test]
fn the_root_of_a_mount_is_taken_off_the_path() {
    let tree = Tree::new();
    tree.unified("");
    let container = tree.mounted(&[(Version::Two, "outer", "/docker/abc")]);
    assert_eq!(container.of("0::/docker/abc/inner\n").unwrap().oom, Some(2));
    assert_eq!(container.of("0::/docker/abcd/inner\n"), None);
    assert_eq!(container.of("0::/\n"), None);
}

#[test]
fn mounts_are_found_where_they_are() {
    let text = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 /docker/a\\040b /sys/fs/cgroup/memory rw,relatime shared:9 master:2 - cgroup cgroup rw,memory
41 31 0:38 / /cgroup\\0402 rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";
    let mount = |version, root: &str, folder: &str| Mount {
        version,
        root: root.into(),
        folder: folder.into(),
    };
    let expected = vec![
        mount(Version::One, "/docker/a b", "/sys/fs/cgroup/memory"),
        mount(Version::Two, "/", "/cgroup 2"),
    ];
    assert_eq!(Hierarchies::parse(text), Hierarchies(expected));
    assert_eq!(Hierarchies::parse("garbage - \n"), Hierarchies::default());
    assert_eq!(unescaped("a\\0b\\134"), Path::new("a\\0b\\"));
}

/// The first mount of all stands behind those below it where an initial system has moved them
/// there, and covers none of them.
#[test]
fn a_mount_below_another_one_is_not_seen() {
    let first = "\
24 29 0:22 / /sys rw - sysfs sysfs rw
27 24 0:24 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw
29 1 8:1 / / rw - ext4 /dev/sda1 rw
";
    let roots = |text: &str| -> Vec<PathBuf> {
        Hierarchies::parse(text).0.into_iter().map(|mount| mount.root).collect()
    };
    assert_eq!(roots(first), [Path::new("/../..")]);
    let over_it = format!("{first}40 27 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    assert_eq!(roots(&over_it), [Path::new("/")]);
    let over_its_parent = format!("{first}40 24 0:25 / /sys rw - tmpfs tmpfs rw\n");
    assert!(roots(&over_its_parent).is_empty());
    let beside_it = format!("{first}40 24 0:25 / /sys/fs/bpf rw - bpf bpf rw\n");
    assert_eq!(roots(&beside_it), [Path::new("/../..")]);
    let circle = "1 2 0:1 / /a rw - cgroup2 c rw\n2 1 0:1 / /b rw - cgroup2 c rw\n";
    assert_eq!(roots(circle).len(), 2);
}

#[test]
fn a_cgroup_is_found_by_its_folder_and_by_its_path() {
    let tree = Tree::new();
    tree.unified("");
    let mounts = tree.mounted(&[(Version::Two, "", "/")]);
    let folder = tree.0.path().join("outer/inner");
    for name in [folder.as_path(), Path::new("/outer/inner"), Path::new("outer/inner")] {
        assert_eq!(mounts.find(name), Some(folder.clone()), "{}", name.display());
    }
    assert_eq!(mounts.at(&folder).unwrap().oom, Some(2));
    assert_eq!(mounts.find(Path::new("/proc")), None);
    assert_eq!(mounts.at(Path::new("/proc")), None);
}

#[test]
fn a_service_is_told_from_a_log_in() {
    let unit = |text| unit_in(text).unwrap_or_default();
    assert_eq!(unit("0::/system.slice/nginx.service\n"), "nginx.service");
    assert_eq!(unit("9:name=systemd:/system.slice/a.service/sub\n0::/\n"), "a.service");
    for none in [
        "",
        "x",
        "0::/",
        "0::/user.slice/user-1000.slice/user@1000.service/app.slice/t.service",
        "0::/init.scope",
    ] {
        assert_eq!(unit(none), "", "{none}");
    }
}

#[test]
fn without_a_controller_there_is_nothing() {
    let tree = Tree::new();
    assert_eq!(tree.mounted(&[(Version::Two, "", "/")]).of("0::/\n4:memory:/x\n"), None);
    assert_eq!(tree.mounted(&[]).of("0::/\n"), None);
    assert_eq!(tree.mounted(&[(Version::One, "", "/")]).of(""), None);
}

#[test]
fn a_process_has_the_path_of_its_memory_controller() {
    assert_eq!(path_in("0::/a/b:c\n"), Some("/a/b:c"));
    assert_eq!(path_in("5:devices:/d\n4:cpu,memory:/m\n0::/u\n"), Some("/m"));
    assert_eq!(path_in("1:name=systemd:/s\n0::/u\n"), Some("/u"));
    assert_eq!(path_in("1:name=systemd:/s\n"), None);
    assert_eq!(path_in(""), None);
    assert_eq!(path_of(u32::MAX), None);
}

#[test]
fn folders_are_found_by_their_inodes() {
    let root = tempfile::tempdir().unwrap();
    let inner = root.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    let paths = paths_below(root.path());
    assert_eq!(paths[&fs::metadata(inner).unwrap().ino()], "/a/b");
    assert_eq!(paths[&fs::metadata(root.path()).unwrap().ino()], "/");
}

#[test]
fn a_cgroup_has_the_processes_of_those_below() {
    let mount = tempfile::tempdir().unwrap();
    let below = mount.path().join("a/b/c/d/e/f/g/h/i/j");
    fs::create_dir_all(&below).unwrap();
    fs::write(mount.path().join("a/cgroup.procs"), "1\n2\n").unwrap();
    fs::write(below.join("cgroup.procs"), "3\n").unwrap();
    assert_eq!(members(&mount.path().join("a")), [1, 2, 3]);
    assert!(members(&mount.path().join("c")).is_empty());
}
