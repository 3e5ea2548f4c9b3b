//! A tap interface: frames of the guest on the host's side of the wire.
// The ioctls of /dev/net/tun have no safe form.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use devices::virtio::{NetPort, spec};
use libc::{
    IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, IFNAMSIZ, O_NONBLOCK, TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6,
};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

use crate::error::{Error, HostContext, Result};

/// A tap interface that passes frames with a `virtio_net_hdr` before them.
pub struct Tap(File);

impl Tap {
    /// Attaches to the interface `name`, making it if need be.
    pub fn open(name: &str) -> Result<Self> {
        let mut request = request(name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open("/dev/net/tun")
            .trying(|| "open /dev/net/tun".into())?;
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is, and keeps no pointer to it.
        let attached = unsafe { ioctl_with_mut_ref(&file, libc::TUNSETIFF, &mut request) };
        check(attached).trying(|| {
            format!(
                "use the tap interface {name} (one that an ordinary user may use is made by: \
                 sudo ip tuntap add {name} mode tap user $USER)"
            )
        })?;
        let header = spec::net::HEADER as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one `int` and keeps no pointer to it.
        let sized = unsafe { ioctl_with_ref(&file, libc::TUNSETVNETHDRSZ, &header) };
        check(sized).trying(|| format!("set the header size of the tap interface {name}"))?;
        Ok(Self(file))
    }

    /// A descriptor that becomes readable when a frame comes.
    pub fn ready(&self) -> Result<OwnedFd> {
        self.0
            .try_clone()
            .map(OwnedFd::from)
            .trying(|| "share a tap interface".into())
    }
}

/// The `ifreq` that asks for a tap interface of this name.
fn request(name: &str) -> Result<libc::ifreq> {
    // The last byte stays zero.
    if name.is_empty() || name.len() >= IFNAMSIZ || name.contains(['\0', '/', '%']) {
        return Err(Error::Host {
            what: format!("use the tap interface {name:?}"),
            source: io::Error::new(
                io::ErrorKind::InvalidInput,
                "a name has 1 to 15 bytes, without '/' and '%'",
            ),
        });
    }
    let mut request = libc::ifreq {
        ifr_name: [0; IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) as libc::c_short,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

impl Read for Tap {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        self.0.read(data)
    }
}

impl Write for Tap {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NetPort for Tap {
    fn set_offloads(&mut self, features: u64) -> io::Result<()> {
        // The tap takes segmentation offload only together with checksum offload, as virtio does (section 5.1.3.1).
        let offloads = [
            (spec::net::F_GUEST_CSUM, TUN_F_CSUM),
            (
                spec::net::F_GUEST_CSUM | spec::net::F_GUEST_TSO4,
                TUN_F_TSO4,
            ),
            (
                spec::net::F_GUEST_CSUM | spec::net::F_GUEST_TSO6,
                TUN_F_TSO6,
            ),
        ];
        let flags = offloads
            .into_iter()
            .filter(|(needed, _)| features & needed == *needed)
            .fold(0, |flags, (_, flag)| flags | flag);
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        check(unsafe { ioctl_with_val(&self.0, libc::TUNSETOFFLOAD, flags.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for name in ["", "sixteen-bytes-xx", "a/b", "tap%d", "a\0b"] {
            assert!(request(name).is_err(), "{name:?}");
        }
        let longest = request("fifteen-bytes-x").unwrap();
        assert_eq!(longest.ifr_name[IFNAMSIZ - 1], 0);
    }
}
