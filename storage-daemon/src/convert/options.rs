//! `BlockdevOptions` as node options.

use block_core::graph::{Descriptions, Perm};
use block_core::options::{
    AioBackend, BackingRef, BlkdebugOptions, CacheOptions, CopyBeforeWriteOptions, DetectZeroes,
    DriverOptions, FileOptions, GivenOptions, GivenValue, InjectError, NbdAddress, NbdOptions, NodeOptions,
    NodeRef, NullOptions, OnCbwError, OwnOptions, Qcow2Options, RawOptions, SetState,
};
use block_core::{BlockError, ErrorKind};
use qapi_runtime::{Error, Value, bridge};
use schema::BlockdevOptionsBranch as Branch;

/// How deep options may hold options. The messages they come in are limited too, but less strictly.
const MAX_DEPTH: u32 = 64;

/// "Invalid argument" of the system.
const EINVAL: i32 = 22;

/// The whole description of a node.
pub fn node_options(options: schema::BlockdevOptions) -> Result<NodeOptions, Error> {
    node(options, 0)
}

fn node(options: schema::BlockdevOptions, depth: u32) -> Result<NodeOptions, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::generic("Block device options are nested too deeply"));
    }
    // Saying that a node is to be activated at once asks for what happens anyhow.
    if options.active == Some(false) {
        return Err(Error::generic("Opening a node inactive is not supported"));
    }
    let given = given(&options)?;
    let refused = refused(&options.branch);
    Ok(NodeOptions {
        given,
        refused,
        node_name: options.node_name.map(Into::into),
        read_only: options.read_only,
        auto_read_only: options.auto_read_only,
        force_share: options.force_share,
        discard_unmap: options
            .discard
            .map(|discard| discard == schema::BlockdevDiscardOptions::Unmap),
        detect_zeroes: options.detect_zeroes.map(detect_zeroes).unwrap_or_default(),
        cache: options
            .cache
            .map(|cache| CacheOptions {
                direct: cache.direct,
                no_flush: cache.no_flush,
            })
            .unwrap_or_default(),
        driver: driver(options.branch, depth)?,
        own: OwnOptions::default(),
    })
}

/// Members that every node has, and the names of children: they are no options of a driver.
const NOT_A_DRIVERS: [&str; 13] = [
    "driver",
    "node-name",
    "read-only",
    "auto-read-only",
    "discard",
    "detect-zeroes",
    "cache",
    "active",
    "file",
    "backing",
    "image",
    "target",
    "bitmap",
];

/// The options of this node as they were given.
fn given(options: &schema::BlockdevOptions) -> Result<GivenOptions, Error> {
    let value = bridge::serialize(options, serde_json::value::Serializer)
        .map_err(|error| Error::generic(error.to_string()))?;
    let mut members = Vec::new();
    if let Value::Object(object) = value {
        for (name, value) in object {
            let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
            if is_empty || !NOT_A_DRIVERS.contains(&name.as_str()) {
                flatten(name, value, &mut members);
            }
        }
    }
    Ok(GivenOptions::new(members))
}

/// Members of members become `a.b`, elements of lists `a.0`.
fn flatten(name: String, value: Value, members: &mut Vec<(String, GivenValue)>) {
    match value {
        Value::Null => members.push((name, GivenValue::Null)),
        Value::Bool(value) => members.push((name, GivenValue::Bool(value))),
        Value::String(value) => members.push((name, GivenValue::Text(value))),
        Value::Number(number) => members.push((
            name,
            match number.as_i128() {
                Some(number) => GivenValue::Number(number),
                None => GivenValue::Text(number.to_string()),
            },
        )),
        Value::Array(elements) if elements.is_empty() => members.push((name, GivenValue::Empty)),
        Value::Object(object) if object.is_empty() => members.push((name, GivenValue::Empty)),
        Value::Array(elements) => {
            for (at, element) in elements.into_iter().enumerate() {
                flatten(format!("{name}.{at}"), element, members);
            }
        }
        Value::Object(object) => {
            for (member, value) in object {
                flatten(format!("{name}.{member}"), value, members);
            }
        }
    }
}

/// Values that the driver cannot take, told when it comes to look at them.
fn refused(branch: &Branch) -> Option<String> {
    let negative = |members: &[(&str, Option<i64>)]| {
        members.iter().find_map(|(name, value)| {
            value
                .filter(|value| *value < 0)
                .map(|value| out_of_range(name, value))
        })
    };
    match branch {
        Branch::File(file) | Branch::HostDevice(file) => file
            .pr_manager
            .as_ref()
            .map(|id| format!("No persistent reservation manager with id '{id}'")),
        Branch::NullCo(null) | Branch::NullAio(null) => negative(&[("size", null.size)]).or_else(|| {
            null.latency_ns
                .filter(|latency| *latency > i64::MAX.unsigned_abs())
                .map(|_| "latency-ns is invalid".to_owned())
        }),
        Branch::Raw(raw) => negative(&[("offset", raw.offset), ("size", raw.size)]),
        Branch::Blkdebug(blkdebug) => negative(&[
            ("align", blkdebug.align),
            ("max-transfer", blkdebug.max_transfer.map(i64::from)),
            ("opt-write-zero", blkdebug.opt_write_zero.map(i64::from)),
            ("max-write-zero", blkdebug.max_write_zero.map(i64::from)),
            ("opt-discard", blkdebug.opt_discard.map(i64::from)),
            ("max-discard", blkdebug.max_discard.map(i64::from)),
        ]),
        _ => None,
    }
}

fn driver(branch: Branch, depth: u32) -> Result<DriverOptions, Error> {
    Ok(match branch {
        Branch::File(file) => DriverOptions::File(file_options(file)),
        Branch::HostDevice(file) => DriverOptions::HostDevice(file_options(file)),
        Branch::NullCo(null) => DriverOptions::NullCo(null_options(&null)),
        Branch::NullAio(null) => DriverOptions::NullAio(null_options(&null)),
        Branch::Raw(raw) => DriverOptions::Raw(RawOptions {
            file: reference(raw.base.file, depth)?,
            offset: natural(raw.offset).unwrap_or(0),
            size: natural(raw.size),
        }),
        Branch::Qcow2(qcow2) => DriverOptions::Qcow2(qcow2_options(qcow2, depth)?),
        Branch::CopyBeforeWrite(cbw) => DriverOptions::CopyBeforeWrite(CopyBeforeWriteOptions {
            file: reference(cbw.base.file, depth)?,
            target: reference(cbw.target, depth)?,
            bitmap: cbw.bitmap.map(|bitmap| (bitmap.node, bitmap.name)),
            on_cbw_error: cbw.on_cbw_error.map(on_cbw_error).unwrap_or_default(),
            cbw_timeout: cbw.cbw_timeout,
            min_cluster_size: cbw.min_cluster_size,
            discard_source: false,
        }),
        Branch::SnapshotAccess(generic) => DriverOptions::SnapshotAccess {
            file: reference(generic.file, depth)?,
        },
        Branch::Throttle(throttle) => DriverOptions::Throttle {
            file: reference(throttle.file, depth)?,
            throttle_group: throttle.throttle_group,
        },
        Branch::Blkdebug(blkdebug) => DriverOptions::Blkdebug(blkdebug_options(blkdebug, depth)?),
        Branch::Nbd(nbd) => DriverOptions::Nbd(NbdOptions {
            server: nbd_address(nbd.server)?,
            export: nbd.export,
            tls_creds: nbd.tls_creds,
            tls_hostname: nbd.tls_hostname,
            x_dirty_bitmap: nbd.x_dirty_bitmap,
            reconnect_delay: nbd.reconnect_delay.unwrap_or(0),
            open_timeout: nbd.open_timeout.unwrap_or(0),
        }),
    })
}

fn null_options(null: &schema::BlockdevOptionsNull) -> NullOptions {
    NullOptions {
        size: natural(null.size).unwrap_or_else(|| NullOptions::default().size),
        latency_ns: null.latency_ns.unwrap_or(0),
        read_zeroes: null.read_zeroes.unwrap_or(false),
    }
}

fn file_options(file: schema::BlockdevOptionsFile) -> FileOptions {
    FileOptions {
        filename: file.filename,
        locking: file.locking.and_then(|locking| match locking {
            schema::OnOffAuto::Auto => None,
            schema::OnOffAuto::On => Some(true),
            schema::OnOffAuto::Off => Some(false),
        }),
        drop_cache: file.drop_cache,
        aio: file.aio.map(|aio| match aio {
            schema::BlockdevAioOptions::Threads => AioBackend::Threads,
            schema::BlockdevAioOptions::Native => AioBackend::Native,
            schema::BlockdevAioOptions::IoUring => AioBackend::IoUring,
        }),
        aio_max_batch: file.aio_max_batch.unwrap_or(0).cast_unsigned(),
    }
}

fn qcow2_options(qcow2: schema::BlockdevOptionsQcow2, depth: u32) -> Result<Qcow2Options, Error> {
    Ok(Qcow2Options {
        file: reference(qcow2.base.base.file, depth)?,
        backing: match qcow2.base.backing {
            None => BackingRef::FromImage,
            Some(schema::BlockdevRefOrNull::Null) => BackingRef::None,
            // The empty name is how nothing was said before null could be.
            Some(schema::BlockdevRefOrNull::Reference(name)) if name.is_empty() => BackingRef::None,
            Some(schema::BlockdevRefOrNull::Reference(name)) => BackingRef::Node(NodeRef::Name(name.into())),
            Some(schema::BlockdevRefOrNull::Definition(options)) => {
                BackingRef::Node(NodeRef::Options(Box::new(node(*options, depth + 1)?)))
            }
        },
        lazy_refcounts: qcow2.lazy_refcounts,
        pass_discard_request: qcow2.pass_discard_request,
        pass_discard_snapshot: qcow2.pass_discard_snapshot,
        pass_discard_other: qcow2.pass_discard_other,
        discard_no_unref: qcow2.discard_no_unref,
        encrypt: qcow2.encrypt.map(|encrypt| encrypt.kind().as_str().to_owned()),
        data_file: qcow2.data_file.map(|file| reference(file, depth)).transpose()?,
        // Negative sizes are the driver's to refuse, once it has seen that there is an image.
        cache_size: qcow2.cache_size.map(i64::cast_unsigned),
        l2_cache_size: qcow2.l2_cache_size.map(i64::cast_unsigned),
        l2_cache_entry_size: qcow2.l2_cache_entry_size.map(i64::cast_unsigned),
        refcount_cache_size: qcow2.refcount_cache_size.map(i64::cast_unsigned),
        cache_clean_interval: qcow2.cache_clean_interval.map(i64::cast_unsigned),
    })
}

fn blkdebug_options(blkdebug: schema::BlockdevOptionsBlkdebug, depth: u32) -> Result<BlkdebugOptions, Error> {
    Ok(BlkdebugOptions {
        image: reference(blkdebug.image, depth)?,
        config: blkdebug.config,
        take_child_perms: permissions(blkdebug.take_child_perms.as_deref()),
        unshare_child_perms: permissions(blkdebug.unshare_child_perms.as_deref()),
        align: natural(blkdebug.align).unwrap_or(0),
        max_transfer: natural32(blkdebug.max_transfer),
        opt_write_zero: natural32(blkdebug.opt_write_zero),
        max_write_zero: natural32(blkdebug.max_write_zero),
        opt_discard: natural32(blkdebug.opt_discard),
        max_discard: natural32(blkdebug.max_discard),
        inject_error: blkdebug
            .inject_error
            .unwrap_or_default()
            .into_iter()
            .map(|rule| InjectError {
                event: rule.event.as_str().to_owned(),
                state: rule.state.unwrap_or(0).cast_unsigned(),
                iotype: rule.iotype.map(|kind| kind.as_str().to_owned()),
                // A number that the system has no error for is one that no client knows either.
                errno: i32::try_from(rule.errno.unwrap_or(5)).unwrap_or(EINVAL),
                // -1 is how any sector was said before the member was optional.
                sector: rule.sector.and_then(|sector| u64::try_from(sector).ok()),
                once: rule.once.unwrap_or(false),
                immediately: rule.immediately.unwrap_or(false),
            })
            .collect(),
        set_state: blkdebug
            .set_state
            .unwrap_or_default()
            .into_iter()
            .map(|rule| SetState {
                event: rule.event.as_str().to_owned(),
                state: rule.state.unwrap_or(0).cast_unsigned(),
                new_state: rule.new_state.cast_unsigned(),
            })
            .collect(),
    })
}

fn permissions(list: Option<&[schema::BlockPermission]>) -> Perm {
    list.unwrap_or_default().iter().fold(Perm::NONE, |perm, one| {
        perm | match one {
            schema::BlockPermission::ConsistentRead => Perm::CONSISTENT_READ,
            schema::BlockPermission::Write => Perm::WRITE,
            schema::BlockPermission::WriteUnchanged => Perm::WRITE_UNCHANGED,
            schema::BlockPermission::Resize => Perm::RESIZE,
        }
    })
}

fn reference(reference: schema::BlockdevRef, depth: u32) -> Result<NodeRef, Error> {
    match reference {
        schema::BlockdevRef::Reference(name) => Ok(NodeRef::Name(name.into())),
        schema::BlockdevRef::Definition(options) => {
            Ok(NodeRef::Options(Box::new(node(*options, depth + 1)?)))
        }
    }
}

/// Reads `json:` names: the options of a node, nested or with dotted names.
#[derive(Debug)]
pub struct JsonNames;

impl Descriptions for JsonNames {
    fn parse(&self, description: &str, format: Option<&str>) -> block_core::Result<NodeOptions> {
        let refuse = |text: String| BlockError::new(ErrorKind::Invalid, text);
        let value = serde_json::from_str(description)
            .map_err(|error| refuse(format!("Could not parse the JSON options: {error}")))?;
        let Value::Object(given) = value else {
            return Err(refuse("Invalid JSON object given".to_owned()));
        };
        let mut object = serde_json::Map::new();
        for (name, value) in given {
            nest(&mut object, &name, value).map_err(refuse)?;
        }
        if let Some(format) = format {
            object
                .entry("driver")
                .or_insert_with(|| Value::String(format.to_owned()));
        }
        let options: schema::BlockdevOptions =
            bridge::deserialize(Value::Object(object)).map_err(|error| refuse(error.to_string()))?;
        node_options(options).map_err(|error| refuse(error.to_string()))
    }
}

/// Puts a value at a name with dots into objects in objects.
fn nest(object: &mut serde_json::Map<String, Value>, name: &str, value: Value) -> Result<(), String> {
    match name.split_once('.') {
        None => {
            if object.insert(name.to_owned(), value).is_some() {
                return Err(format!("Option '{name}' is given twice"));
            }
            Ok(())
        }
        Some((first, rest)) => match object
            .entry(first)
            .or_insert_with(|| Value::Object(serde_json::Map::new()))
        {
            Value::Object(inner) => nest(inner, rest, value),
            _ => Err(format!("Option '{first}' cannot have members")),
        },
    }
}

/// A node reference that stands outside of any other node's options.
pub fn node_reference(given: schema::BlockdevRef) -> Result<NodeRef, Error> {
    reference(given, 0)
}

/// Where an NBD server is.
pub fn nbd_address(address: schema::SocketAddress) -> Result<NbdAddress, Error> {
    match address {
        schema::SocketAddress::Unix(unix) if unix.r#abstract == Some(true) => Ok(NbdAddress::AbstractUnix {
            name: unix.path,
            tight: unix.tight.unwrap_or(true),
        }),
        schema::SocketAddress::Unix(unix) => Ok(NbdAddress::Unix(unix.path)),
        schema::SocketAddress::Inet(inet) => Ok(NbdAddress::Inet {
            host: inet.base.host,
            port: inet.base.port,
        }),
        schema::SocketAddress::Fd(_) => Err(Error::generic("only QEMU supports file descriptor passing")),
        schema::SocketAddress::Vsock(vsock) => {
            let number = |what: &str, text: &str| match text.parse::<u32>() {
                Ok(_) => Ok(()),
                Err(_) => Err(Error::generic(format!("Failed to parse {what} '{text}'"))),
            };
            number("cid", &vsock.cid)?;
            number("port", &vsock.port)?;
            Err(Error::generic(
                "Only 'inet' and 'unix' sockets are supported here",
            ))
        }
    }
}

/// What to do about writes of zeroes.
pub fn detect_zeroes(detect: schema::BlockdevDetectZeroesOptions) -> DetectZeroes {
    match detect {
        schema::BlockdevDetectZeroesOptions::Off => DetectZeroes::Off,
        schema::BlockdevDetectZeroesOptions::On => DetectZeroes::On,
        schema::BlockdevDetectZeroesOptions::Unmap => DetectZeroes::Unmap,
    }
}

/// What to do when old data cannot be saved.
pub fn on_cbw_error(action: schema::OnCbwError) -> OnCbwError {
    match action {
        schema::OnCbwError::BreakGuestWrite => OnCbwError::BreakGuestWrite,
        schema::OnCbwError::BreakSnapshot => OnCbwError::BreakSnapshot,
    }
}

/// A schema `int` that cannot be negative; where it is, [`refused`] has the words.
fn natural(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok())
}

fn natural32(value: Option<i32>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}

fn out_of_range(name: &str, value: i64) -> String {
    format!("Value '{value}' is out of range for parameter '{name}'")
}
