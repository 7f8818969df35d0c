//! The network of a container: a loopback of its own, and nothing else unless it has a way out.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A connection on a loopback stands at once, or not at all.
const DIAL_PATIENCE: Duration = Duration::from_secs(2);
/// Index of the loopback: the first of every network.
const LOOPBACK: i32 = 1;
/// From linux/rtnetlink.h and linux/netlink.h: change a link; answer, whether it was done.
const NEW_LINK: u16 = 16;
const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
const ERROR: u16 = 2;
const UP: u32 = 1;

/// Does something in a network, on a thread that is in it from then on.
pub(super) fn within<T: Send>(
    network: &File,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        inside.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

/// Raises the loopback of a process's network, which a new one has down.
pub(super) fn raise_loopback(pid: i32) -> io::Result<()> {
    within(&of(pid)?, || {
        // The protocol of number 0 is that of links and routes.
        let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
        let mut message = Vec::new();
        message.extend(32_u32.to_ne_bytes());
        message.extend(NEW_LINK.to_ne_bytes());
        message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
        message.extend([0; 8]);
        message.extend([0; 4]);
        message.extend(LOOPBACK.to_ne_bytes());
        message.extend(UP.to_ne_bytes());
        message.extend(UP.to_ne_bytes());
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&socket, &message, SendFlags::empty(), &kernel)?;
        let mut answer = [0_u8; 128];
        let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
        // A header of 16 bytes, then the error, 0 for none.
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        if length < 20 || kind != ERROR {
            return Err(io::Error::other("netlink gave no answer"));
        }
        if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-error)) }
    })
}

/// The network of a process, open.
pub(super) fn of(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/net"))
}

/// Connects to a port in a network.
pub(super) fn dial(network: &File, port: u16) -> io::Result<OwnedFd> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    within(network, move || Ok(TcpStream::connect_timeout(&address, DIAL_PATIENCE)?.into()))
}
