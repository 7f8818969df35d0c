//! Which calls of the kernel a container may make.
//!
//! All that this release of the program knows, but those that look beyond the container, change
//! the machine, or have been a way out of containers before; what a newer kernel adds does not
//! exist for it. The filter is installed by the container's first process itself, last before
//! it becomes the workload.

use seccompiler::{BpfProgram, sock_filter};

/// The last call that is known: later ones are answered as by a kernel that lacks them.
const LAST_KNOWN: u32 = 462;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

/// Offsets in what a filter sees: number, architecture, and the lower half of arguments.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;

/// Instructions: load a word, compare, return.
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

#[cfg(target_arch = "x86_64")]
const THIS_ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const THIS_ARCHITECTURE: u32 = 0xc000_00b7;

/// New namespaces of a clone: a container that makes a user namespace has its kernel's whole
/// surface before it.
const NEW_NAMESPACES: u32 = 0x7e02_0080;
/// Families of sockets: local, IPv4, IPv6, and what asks the kernel for addresses and routes.
/// Others reach the machine (vsock), or much code that few need.
const FAMILIES: [u32; 4] = [1, 2, 10, 16];
/// Input that is put into a terminal as if it had been typed.
const TIOCSTI: u32 = 0x5412;

/// Calls that are refused.
const REFUSED: [i64; 52] = [
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Namespaces.
    libc::SYS_setns,
    libc::SYS_unshare,
    // Programs in the kernel, and what looks into it.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_syslog,
    libc::SYS_memfd_secret,
    // Keys: not all of them belong to a namespace.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The machine itself.
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_nfsservctl,
    // Files by number, and files of other processes.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_pidfd_getfd,
    // Memory of other nodes.
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node,
];

/// Those that one architecture alone has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: [i64; 7] = [
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS__sysctl,
    libc::SYS_sysfs,
    libc::SYS_ustat,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: [i64; 0] = [];

/// The filter of this architecture.
pub(super) fn filter() -> BpfProgram {
    let refuse = |errno| answer(ERRNO | errno);
    let mut code = vec![
        load(ARCHITECTURE),
        jump(IF_EQUAL, THIS_ARCHITECTURE, 1, 0),
        answer(KILL),
        load(NUMBER),
        // The other numbers of a 64-bit machine (x32) have a high bit, too.
        jump(IF_AT_LEAST, LAST_KNOWN + 1, 0, 1),
        refuse(ENOSYS),
    ];
    for call in REFUSED.into_iter().chain(REFUSED_HERE) {
        code.extend([jump(IF_EQUAL, number(call), 0, 1), refuse(EPERM)]);
    }
    // Its flags are behind a pointer, where no filter looks: programs fall back on clone.
    code.extend([jump(IF_EQUAL, number(libc::SYS_clone3), 0, 1), refuse(ENOSYS)]);
    code.extend([
        jump(IF_EQUAL, number(libc::SYS_clone), 0, 4),
        load(FIRST_ARGUMENT),
        jump(IF_ANY_BIT, NEW_NAMESPACES, 0, 1),
        refuse(EPERM),
        answer(ALLOW),
    ]);
    code.extend([
        jump(IF_EQUAL, number(libc::SYS_ioctl), 0, 4),
        load(SECOND_ARGUMENT),
        jump(IF_EQUAL, TIOCSTI, 0, 1),
        refuse(EPERM),
        answer(ALLOW),
    ]);
    let count = u8::try_from(FAMILIES.len()).unwrap_or(0);
    code.extend([jump(IF_EQUAL, number(libc::SYS_socket), 0, count + 2), load(FIRST_ARGUMENT)]);
    for (at, family) in (0_u8..).zip(FAMILIES) {
        code.push(jump(IF_EQUAL, family, count - at, 0));
    }
    code.extend([refuse(EAFNOSUPPORT), answer(ALLOW)]);
    code
}

fn number(call: i64) -> u32 {
    u32::try_from(call).unwrap_or(LAST_KNOWN)
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

/// Compares, and skips so many instructions if it holds, or if it does not.
fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn answer(k: u32) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn judge(number: u32, arguments: [u32; 2], architecture: u32) -> u32 {
        let code = filter();
        let (mut at, mut word) = (0, 0);
        loop {
            let step = &code[at];
            at += 1;
            let skip = |holds| usize::from(if holds { step.jt } else { step.jf });
            match step.code {
                LOAD => {
                    word = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        FIRST_ARGUMENT => arguments[0],
                        _ => arguments[1],
                    };
                }
                IF_EQUAL => at += skip(word == step.k),
                IF_AT_LEAST => at += skip(word >= step.k),
                IF_ANY_BIT => at += skip(word & step.k != 0),
                _ => return step.k,
            }
        }
    }

    #[test]
    fn the_filter_judges_as_it_says() {
        let call =
            |call: i64, first, second| judge(number(call), [first, second], THIS_ARCHITECTURE);
        let table = [
            (call(libc::SYS_read, 0, 0), ALLOW),
            (call(libc::SYS_execve, 0, 0), ALLOW),
            (call(libc::SYS_mount, 0, 0), ERRNO | EPERM),
            (call(libc::SYS_bpf, 0, 0), ERRNO | EPERM),
            (call(libc::SYS_clone3, 0, 0), ERRNO | ENOSYS),
            (call(libc::SYS_clone, 0x0011_0011, 0), ALLOW),
            (call(libc::SYS_clone, 0x1000_0011, 0), ERRNO | EPERM),
            (call(libc::SYS_clone, 0x0002_0000, 0), ERRNO | EPERM),
            (call(libc::SYS_ioctl, 0, 0x5401), ALLOW),
            (call(libc::SYS_ioctl, 0, TIOCSTI), ERRNO | EPERM),
            (call(libc::SYS_socket, 1, 0), ALLOW),
            (call(libc::SYS_socket, 2, 0), ALLOW),
            (call(libc::SYS_socket, 10, 0), ALLOW),
            (call(libc::SYS_socket, 16, 0), ALLOW),
            (call(libc::SYS_socket, 40, 0), ERRNO | EAFNOSUPPORT),
            (call(libc::SYS_socket, 38, 0), ERRNO | EAFNOSUPPORT),
            (call(i64::from(LAST_KNOWN) + 1, 0, 0), ERRNO | ENOSYS),
            (judge(0x4000_0000, [0, 0], THIS_ARCHITECTURE), ERRNO | ENOSYS),
            (judge(0, [0, 0], 0x4000_0003), KILL),
        ];
        for (row, (found, expected)) in table.into_iter().enumerate() {
            assert_eq!(found, expected, "row {row}");
        }
    }
}
