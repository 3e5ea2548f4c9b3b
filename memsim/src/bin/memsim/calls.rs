//! Which memory a system call may touch, for the calls in which threads wait.
//!
//! A thread that waits enters the kernel again every time that it was stopped. Were all pages opened
//! for that, a program with one idle thread could not be watched.

/// Ranges of memory as (address, bytes).
pub type Ranges = Vec<(u64, u64)>;

/// Memory that a call may touch; `None` when that is not known here.
pub fn ranges(number: u64, arguments: &[u64; 6]) -> Option<Ranges> {
    let [first, second, third, fourth, fifth, _] = *arguments;
    const TIME: u64 = size_of::<libc::timespec>() as u64;
    const STATUS: u64 = 4;
    Some(match number as libc::c_long {
        libc::SYS_futex => vec![(first, 4), (fourth, TIME), (fifth, 4)],
        libc::SYS_nanosleep => vec![(first, TIME), (second, TIME)],
        libc::SYS_clock_nanosleep => vec![(third, TIME), (fourth, TIME)],
        libc::SYS_read | libc::SYS_write => vec![(second, third)],
        libc::SYS_poll => vec![(
            first,
            second.saturating_mul(size_of::<libc::pollfd>() as u64),
        )],
        libc::SYS_epoll_wait => {
            vec![(
                second,
                third.saturating_mul(size_of::<libc::epoll_event>() as u64),
            )]
        }
        libc::SYS_wait4 => vec![(second, STATUS), (fourth, size_of::<libc::rusage>() as u64)],
        libc::SYS_sched_yield | libc::SYS_pause | libc::SYS_getpid | libc::SYS_gettid => Vec::new(),
        _ => return None,
    })
}

/// Whether any range touches a page.
pub fn touch(ranges: &Ranges, page: u64, bytes: u64) -> bool {
    ranges.iter().any(|&(start, length)| {
        start < page.saturating_add(bytes) && start.saturating_add(length) > page
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_touches_its_buffer_only() {
        let ranges = ranges(libc::SYS_read as u64, &[3, 0x1ff0, 0x20, 0, 0, 0]).unwrap();
        assert!(touch(&ranges, 0x1000, 0x1000));
        assert!(touch(&ranges, 0x2000, 0x1000));
        assert!(!touch(&ranges, 0x3000, 0x1000));
    }

    #[test]
    fn other_calls_may_touch_anything() {
        assert_eq!(ranges(libc::SYS_ioctl as u64, &[0; 6]), None);
        assert_eq!(ranges(libc::SYS_fork as u64, &[0; 6]), None);
    }
}
