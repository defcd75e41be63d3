//! The addresses and the numbers of this host's interfaces, as the caller's network namespace has
//! them.

use std::{
    ffi::CString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::check;

/// The IPv4 and IPv6 addresses of all interfaces that are up, in the kernel's order, each once.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call fills `list`, which is freed below and not used after.
    check(unsafe { libc::getifaddrs(&raw mut list) })?;
    let mut found = Vec::new();
    let mut entry = list;
    // SAFETY: the list is valid until it is freed, its last entry's `ifa_next` is null.
    while let Some(interface) = unsafe { entry.as_ref() } {
        if interface.ifa_flags & libc::IFF_UP.unsigned_abs() != 0 {
            // SAFETY: `ifa_addr` is null or an address of the family that it says, inside the list.
            found.extend(unsafe { address_of(interface.ifa_addr) });
        }
        entry = interface.ifa_next;
    }
    // SAFETY: came from getifaddrs, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    let mut seen = std::collections::HashSet::new();
    found.retain(|address| seen.insert(*address));
    Ok(found)
}

/// # Safety
/// `address` is null or points to a socket address of the family that it says.
unsafe fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's promise.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: the caller's promise; the read asks for no alignment.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// The number of the interface `name`, by which the kernel takes it in a scope (`sin6_scope_id`).
/// `None`: there is no such interface.
pub fn number_of(name: &str) -> io::Result<Option<u32>> {
    // A name with a zero in it is nobody's.
    let Ok(name) = CString::new(name) else { return Ok(None) };
    // SAFETY: a string that ends with a zero and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => none_if_missing(io::Error::last_os_error()),
        number => Ok(Some(number)),
    }
}

/// Whether there is an interface of this number.
pub fn exists(number: u32) -> io::Result<bool> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the room that the call may fill, IF_NAMESIZE bytes with the zero at
    // the end.
    match unsafe { libc::if_indextoname(number, name.as_mut_ptr()) }.is_null() {
        true => Ok(none_if_missing::<()>(io::Error::last_os_error())?.is_some()),
        false => Ok(true),
    }
}

/// ENODEV is the kernel's word for an interface that does not exist (net/core/dev_ioctl.c,
/// `dev_ioctl`, 6.18), ENXIO the C library's for the same in `if_indextoname`.
fn none_if_missing<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => Ok(None),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_name_and_by_its_number() {
        let lo = number_of("lo").unwrap().unwrap();
        assert!(exists(lo).unwrap());
        for missing in ["", "no-such", "lo\0", "a name that is longer than any interface's"] {
            assert_eq!(number_of(missing).unwrap(), None, "{missing}");
        }
        assert!(!exists(0).unwrap() && !exists(u32::MAX).unwrap());
    }

    #[test]
    fn every_address_can_be_bound_or_is_link_local() {
        for address in addresses().unwrap() {
            let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            assert!(link_local || std::net::TcpListener::bind((address, 0)).is_ok(), "{address}");
        }
    }
}
