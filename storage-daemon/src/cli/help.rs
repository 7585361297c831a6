//! What `--help` and `--version` print.

/// The version of QEMU whose interface is offered: `query-version` says it, and clients decide by it.
pub const QEMU_VERSION: (i64, i64, i64) = (10, 0, 2);

/// The text of `--version`.
pub fn version() -> String {
    let (major, minor, micro) = QEMU_VERSION;
    format!(
        "storage-daemon version {} (interface of qemu-storage-daemon {major}.{minor}.{micro})\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The text of `--help`.
pub const HELP: &str = "\
Usage: storage-daemon [options]

Serves disk images by NBD and backs them up, controlled by QMP. Options take
effect in the order in which they are given.

  -h, --help             print this text and exit
  -V, --version          print the version and exit
  -T, --trace <pattern>  accepted for compatibility; what there is to see is
                         told by --log (--trace help lists its targets)

Values are key=value,... (two commas stand for one) or a JSON object.

  --blockdev [driver=]<driver>,node-name=<name>[,read-only=on|off]
             [,auto-read-only=on|off][,force-share=on|off]
             [,cache.direct=on|off][,cache.no-flush=on|off]
             [,discard=ignore|unmap][,detect-zeroes=on|off|unmap]
             [,<option of the driver>=<value>...]
                         open a node; drivers: blkdebug, copy-before-write,
                         file, host_device, nbd, null-co, qcow2,
                         raw, snapshot-access, throttle

  --chardev socket,id=<id>,path=<path>,server=on[,wait=off]
  --chardev socket,id=<id>,host=<host>,port=<port>,server=on[,wait=off]
  --chardev socket,id=<id>,fd=<number or systemd's name>,server=on|off
  --chardev socket,id=<id>,path=<path>[,reconnect-ms=<ms>]
  --chardev pipe,id=<id>,path=<path>
  --chardev stdio,id=<id>
                         a channel for a monitor; any number of clients can
                         use one listening socket at once

  --monitor [chardev=]<id>[,mode=control][,pretty=on|off]
            [,compat.deprecated-input=accept|reject][,<more>]
                         speak QMP on a channel; pretty: a value a line;
                         compat: as --compat (but crash), for its clients

  --nbd-server addr.type=unix,addr.path=<path>[,<more>]
  --nbd-server addr.type=inet,addr.host=<host>,addr.port=<port>[,<more>]
  --nbd-server addr.type=fd,addr.str=<number or systemd's name>[,<more>]
                         listen for NBD clients; more: tls-creds=<id>,
                         tls-authz=<id>, max-connections=<n>,
                         handshake-max-seconds=<n>

  --export [type=]nbd,id=<id>,node-name=<node>[,name=<name>]
           [,writable=on|off][,bitmaps.0=<bitmap>...]
                         offer a node to NBD clients

  --object [qom-type=]<type>,id=<id>[,<property>=<value>...]
                         make an object: authz-list, authz-simple, iothread,
                         main-loop, secret, throttle-group, tls-creds-x509
  --object help          list the types
  --object <type>,help   list the properties of a type

  --daemonize            go on in the background once all is set up
  --pidfile <path>       write the process id there once all is set up

  --compat deprecated-input=<policy>[,deprecated-output=<policy>]
           [,unstable-input=<policy>][,unstable-output=<policy>]
                         what to do about deprecated and unstable parts of
                         the interface: accept, reject or crash for input,
                         accept or hide for output
  --log <filter>         log to standard error: a level, or target=level,...
                         (also from the environment: RUST_LOG)
  --audit <path>         append a line of JSON there for each command run
";
