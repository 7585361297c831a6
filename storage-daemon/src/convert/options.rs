//! `BlockdevOptions` as node options.

use block_core::options::{
    AioBackend, BackingRef, BlkdebugOptions, CacheOptions, CopyBeforeWriteOptions, DetectZeroes,
    DriverOptions, FileOptions, InjectError, NbdAddress, NbdOptions, NodeOptions, NodeRef, NullOptions,
    OnCbwError, Qcow2Options, RawOptions, SetState,
};
use qapi_runtime::Error;
use schema::BlockdevOptionsBranch as Branch;

/// How deep options may hold options. The messages they come in are limited too, but less strictly.
const MAX_DEPTH: u32 = 64;

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
    let kind = options.kind().as_str();
    if options
        .cache
        .as_ref()
        .is_some_and(|cache| cache.direct.is_none() && cache.no_flush.is_none())
    {
        // Nothing in it: no part of it is left for the node to take, which leaves the whole for the driver.
        return Err(unsupported(kind, "cache"));
    }
    if let Branch::Blkdebug(blkdebug) = &options.branch {
        for (name, empty) in [
            (
                "inject-error",
                blkdebug.inject_error.as_ref().is_some_and(Vec::is_empty),
            ),
            (
                "set-state",
                blkdebug.set_state.as_ref().is_some_and(Vec::is_empty),
            ),
        ] {
            if empty {
                return Err(unsupported(kind, name));
            }
        }
    }
    Ok(NodeOptions {
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
    })
}

/// What is said of an option that a driver does not know.
fn unsupported(driver: &str, option: &str) -> Error {
    Error::generic(match driver {
        "file" | "host_device" | "null-co" | "nbd" | "blkdebug" => {
            format!("Block protocol '{driver}' doesn't support the option '{option}'")
        }
        _ => format!("Block format '{driver}' does not support the option '{option}'"),
    })
}

fn driver(branch: Branch, depth: u32) -> Result<DriverOptions, Error> {
    Ok(match branch {
        Branch::File(file) => DriverOptions::File(file_options(file)?),
        Branch::HostDevice(file) => DriverOptions::HostDevice(file_options(file)?),
        Branch::NullCo(null) => {
            let latency_ns = null.latency_ns.unwrap_or(0);
            if latency_ns > i64::MAX.unsigned_abs() {
                return Err(Error::generic("latency-ns is invalid"));
            }
            DriverOptions::NullCo(NullOptions {
                size: natural("size", null.size)?.unwrap_or_else(|| NullOptions::default().size),
                latency_ns,
                read_zeroes: null.read_zeroes.unwrap_or(false),
            })
        }
        Branch::Raw(raw) => DriverOptions::Raw(RawOptions {
            file: reference(raw.base.file, depth)?,
            offset: natural("offset", raw.offset)?.unwrap_or(0),
            size: natural("size", raw.size)?,
        }),
        Branch::Qcow2(qcow2) => DriverOptions::Qcow2(qcow2_options(qcow2, depth)?),
        Branch::CopyBeforeWrite(cbw) => DriverOptions::CopyBeforeWrite(CopyBeforeWriteOptions {
            file: reference(cbw.base.file, depth)?,
            target: reference(cbw.target, depth)?,
            bitmap: cbw.bitmap.map(|bitmap| (bitmap.node, bitmap.name)),
            on_cbw_error: cbw.on_cbw_error.map(on_cbw_error).unwrap_or_default(),
            cbw_timeout: cbw.cbw_timeout.unwrap_or(0),
            min_cluster_size: cbw.min_cluster_size,
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

fn file_options(file: schema::BlockdevOptionsFile) -> Result<FileOptions, Error> {
    if let Some(id) = file.pr_manager {
        return Err(Error::generic(format!(
            "No persistent reservation manager with id '{id}'"
        )));
    }
    Ok(FileOptions {
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
        aio_max_batch: natural("aio-max-batch", file.aio_max_batch)?.unwrap_or(0),
    })
}

fn qcow2_options(qcow2: schema::BlockdevOptionsQcow2, depth: u32) -> Result<Qcow2Options, Error> {
    if qcow2.encrypt.is_some() {
        return Err(Error::generic("Encrypted qcow2 images are not supported"));
    }
    if qcow2.data_file.is_some() {
        return Err(Error::generic("External data files are not supported"));
    }
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
        cache_size: wrapped(qcow2.cache_size),
        l2_cache_size: wrapped(qcow2.l2_cache_size),
        l2_cache_entry_size: wrapped(qcow2.l2_cache_entry_size),
        refcount_cache_size: wrapped(qcow2.refcount_cache_size),
        cache_clean_interval: match qcow2.cache_clean_interval.map(u32::try_from).transpose() {
            Ok(seconds) => seconds.map(u64::from),
            Err(_) => return Err(Error::generic("Cache clean interval too big")),
        },
    })
}

fn blkdebug_options(blkdebug: schema::BlockdevOptionsBlkdebug, depth: u32) -> Result<BlkdebugOptions, Error> {
    if blkdebug.config.is_some() {
        return Err(Error::generic("Files with blkdebug rules are not supported"));
    }
    if blkdebug.take_child_perms.is_some() || blkdebug.unshare_child_perms.is_some() {
        return Err(Error::generic(
            "Changing the permissions of blkdebug's child is not supported",
        ));
    }
    Ok(BlkdebugOptions {
        image: reference(blkdebug.image, depth)?,
        align: natural("align", blkdebug.align)?.unwrap_or(0),
        max_transfer: natural32("max-transfer", blkdebug.max_transfer)?,
        opt_write_zero: natural32("opt-write-zero", blkdebug.opt_write_zero)?,
        max_write_zero: natural32("max-write-zero", blkdebug.max_write_zero)?,
        opt_discard: natural32("opt-discard", blkdebug.opt_discard)?,
        max_discard: natural32("max-discard", blkdebug.max_discard)?,
        inject_error: blkdebug
            .inject_error
            .unwrap_or_default()
            .into_iter()
            .map(|rule| {
                Ok(InjectError {
                    event: rule.event.as_str().to_owned(),
                    state: natural("state", rule.state)?.unwrap_or(0),
                    iotype: rule.iotype.map(|kind| kind.as_str().to_owned()),
                    errno: i32::try_from(rule.errno.unwrap_or(5))
                        .map_err(|_| Error::generic("Parameter 'errno' is out of range"))?,
                    // -1 is how any sector was said before the member was optional.
                    sector: rule.sector.and_then(|sector| u64::try_from(sector).ok()),
                    once: rule.once.unwrap_or(false),
                    immediately: rule.immediately.unwrap_or(false),
                })
            })
            .collect::<Result<_, Error>>()?,
        set_state: blkdebug
            .set_state
            .unwrap_or_default()
            .into_iter()
            .map(|rule| {
                Ok(SetState {
                    event: rule.event.as_str().to_owned(),
                    state: natural("state", rule.state)?.unwrap_or(0),
                    new_state: natural("new_state", Some(rule.new_state))?.unwrap_or(0),
                })
            })
            .collect::<Result<_, Error>>()?,
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

/// A node reference that stands outside of any other node's options.
pub fn node_reference(given: schema::BlockdevRef) -> Result<NodeRef, Error> {
    reference(given, 0)
}

/// Where an NBD server is.
pub fn nbd_address(address: schema::SocketAddress) -> Result<NbdAddress, Error> {
    match address {
        schema::SocketAddress::Unix(unix) => Ok(NbdAddress::Unix(unix.path)),
        schema::SocketAddress::Inet(inet) => Ok(NbdAddress::Inet {
            host: inet.base.host,
            port: inet.base.port,
        }),
        schema::SocketAddress::Vsock(_) | schema::SocketAddress::Fd(_) => Err(Error::generic(
            "Only 'inet' and 'unix' sockets are supported here",
        )),
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

/// A size that is declared with a sign: a negative one is as large as its bits say, so that the driver refuses it.
fn wrapped(value: Option<i64>) -> Option<u64> {
    value.map(i64::cast_unsigned)
}

/// A schema `int` that cannot be negative.
pub fn natural(name: &str, value: Option<i64>) -> Result<Option<u64>, Error> {
    value
        .map(|value| {
            u64::try_from(value)
                .map_err(|_| Error::generic(format!("Parameter '{name}' must not be negative")))
        })
        .transpose()
}

fn natural32(name: &str, value: Option<i32>) -> Result<u32, Error> {
    u32::try_from(value.unwrap_or(0))
        .map_err(|_| Error::generic(format!("Parameter '{name}' must not be negative")))
}
