//! Names and numbers of TCP sockets.

use std::net::SocketAddr;

use crate::cli::CliError;
use crate::cli::chardev::Address;

/// The addresses that a TCP address may mean, in the order in which to try them.
pub async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, CliError> {
    let Address::Inet {
        host,
        port,
        to,
        ipv4,
        ipv6,
    } = address
    else {
        return Ok(Vec::new());
    };
    let fail = |why: &str| CliError::new(format!("address resolution failed for {host}:{port}: {why}"));
    let first: u16 = port
        .parse()
        .map_err(|_| fail("Servname not supported for ai_socktype"))?;
    let last = to.unwrap_or(first).max(first);
    // An empty host is any address.
    let wanted = if host.is_empty() { "::" } else { host.as_str() };
    let wanted = wanted
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(wanted);
    let found = tokio::net::lookup_host((wanted, first)).await.map_err(|error| {
        fail(
            error
                .to_string()
                .trim_start_matches("failed to lookup address information: "),
        )
    })?;
    // What is switched on alone excludes the other.
    let allowed = |v6: bool| match (ipv4, ipv6) {
        (Some(false), _) if !v6 => false,
        (_, Some(false)) if v6 => false,
        (Some(true), None) => !v6,
        (None, Some(true)) => v6,
        _ => true,
    };
    let mut addresses: Vec<SocketAddr> = found.filter(|found| allowed(found.is_ipv6())).collect();
    addresses.dedup();
    let mut all = Vec::new();
    for number in first..=last {
        all.extend(addresses.iter().map(|found| SocketAddr::new(found.ip(), number)));
    }
    if all.is_empty() {
        // There are addresses, all of the family that is not wanted.
        Err(fail("Address family for hostname not supported"))
    } else {
        Ok(all)
    }
}
