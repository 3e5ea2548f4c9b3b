use super::super::testing::{Access, Driver, F_INDIRECT, F_NEXT, F_WRITE};
use super::*;

const DATA: u64 = Driver::DATA;

/// Pops the chain that `make` put into a queue of eight entries.
fn pop(make: impl FnOnce(&mut Driver)) -> Result<Chain, Broken> {
    let mut driver = Driver::new(8);
    make(&mut driver);
    let mut chain = Chain::default();
    match driver.queue().pop(driver.mem(), &mut chain)? {
        true => Ok(chain),
        false => panic!("no chain"),
    }
}

#[test]
fn a_chain_is_a_readable_and_a_writable_run_of_bytes() {
    let mut driver = Driver::new(8);
    driver.put(DATA, b"abc");
    driver.put(DATA + 0x10, b"defg");
    let head = driver.offer(&[
        (DATA, 3, Access::Read),
        (DATA + 0x10, 4, Access::Read),
        (DATA + 0x20, 2, Access::Write),
        (DATA + 0x30, 6, Access::Write),
    ]);
    let mut queue = driver.queue();
    let mut chain = Chain::default();
    assert_eq!(queue.pop(driver.mem(), &mut chain), Ok(true));
    assert_eq!(
        (chain.head(), chain.readable.len(), chain.writable.len()),
        (head, 7, 8)
    );

    let mut bytes = [0; 4];
    chain.readable.read(driver.mem(), 2, &mut bytes).unwrap();
    assert_eq!(&bytes, b"cdef");
    assert_eq!(
        chain.readable.read(driver.mem(), 4, &mut bytes),
        Err(Broken::TooShort)
    );

    chain.writable.write(driver.mem(), 1, b"xyz").unwrap();
    assert_eq!(driver.bytes(DATA + 0x20, 2), [0, b'x']);
    assert_eq!(driver.bytes(DATA + 0x30, 3), [b'y', b'z', 0]);
    assert_eq!(queue.pop(driver.mem(), &mut chain), Ok(false));
}

#[test]
fn an_indirect_table_is_followed() {
    let chain = pop(|driver| {
        let table = DATA + 0x1000;
        Driver::descriptor_in(driver.mem(), table, 0, DATA, 5, F_NEXT, 1);
        Driver::descriptor_in(driver.mem(), table, 1, DATA, 9, F_WRITE, 0);
        driver.descriptor(0, table, 32, F_INDIRECT, 0);
        driver.publish(0);
    })
    .unwrap();
    assert_eq!((chain.readable.len(), chain.writable.len()), (5, 9));
}

#[test]
fn a_chain_that_loops_is_broken() {
    let looped = pop(|driver| {
        driver.descriptor(0, DATA, 1, F_NEXT, 1);
        driver.descriptor(1, DATA, 1, F_NEXT, 0);
        driver.publish(0);
    });
    assert_eq!(looped.unwrap_err(), Broken::Chain);
}

#[test]
fn a_chain_that_leaves_its_table_is_broken() {
    let next_outside = pop(|driver| {
        driver.descriptor(0, DATA, 1, F_NEXT, 8);
        driver.publish(0);
    });
    assert_eq!(next_outside.unwrap_err(), Broken::Chain);
    let head_outside = pop(|driver| driver.publish(0xffff));
    assert_eq!(head_outside.unwrap_err(), Broken::Chain);
}

#[test]
fn an_indirect_table_in_an_indirect_table_is_broken() {
    let nested = pop(|driver| {
        Driver::descriptor_in(driver.mem(), DATA, 0, DATA, 16, F_INDIRECT, 0);
        driver.descriptor(0, DATA, 16, F_INDIRECT, 0);
        driver.publish(0);
    });
    assert_eq!(nested.unwrap_err(), Broken::Chain);
}

#[test]
fn an_empty_or_ragged_indirect_table_is_broken() {
    for len in [0, 15, 17, u32::MAX] {
        let odd = pop(|driver| {
            driver.descriptor(0, DATA, len, F_INDIRECT, 0);
            driver.publish(0);
        });
        assert_eq!(odd.unwrap_err(), Broken::Chain, "{len:#x} bytes");
    }
}

#[test]
fn an_indirect_chain_longer_than_the_queue_is_broken() {
    let long = pop(|driver| {
        for index in 0..9 {
            let next = if index < 8 { F_NEXT } else { 0 };
            Driver::descriptor_in(driver.mem(), DATA, index, DATA, 1, next, index + 1);
        }
        driver.descriptor(0, DATA, 9 * 16, F_INDIRECT, 0);
        driver.publish(0);
    });
    assert_eq!(long.unwrap_err(), Broken::TooLong);
}

#[test]
fn a_readable_buffer_behind_a_writable_one_is_broken() {
    let swapped = pop(|driver| {
        driver.offer(&[(DATA, 1, Access::Write), (DATA, 1, Access::Read)]);
    });
    assert_eq!(swapped.unwrap_err(), Broken::Order);
}

#[test]
fn a_buffer_outside_memory_is_found_when_it_is_used() {
    let driver = Driver::new(8);
    for address in [0x3_fffe, 1 << 40, u64::MAX - 1] {
        let chain = pop(|driver| {
            driver.offer(&[(address, 4, Access::Read), (address, 4, Access::Write)]);
        })
        .unwrap();
        assert_eq!(
            chain.readable.read(driver.mem(), 0, &mut [0; 4]),
            Err(Broken::Address)
        );
        assert_eq!(
            chain.writable.write(driver.mem(), 0, &[0; 4]),
            Err(Broken::Address)
        );
    }
}

#[test]
fn an_available_index_that_runs_ahead_is_broken() {
    let driver = Driver::new(8);
    let mut queue = driver.queue();
    driver.claim(9);
    assert_eq!(
        queue.pop(driver.mem(), &mut Chain::default()),
        Err(Broken::Available)
    );
}

#[test]
fn rings_outside_memory_or_askew_are_refused() {
    let driver = Driver::new(8);
    let good = driver.state();
    let refused = |state| Virtqueue::new(state, driver.mem()).map(drop).unwrap_err();
    for outside in [0x3_fff0, !0xf] {
        assert_eq!(
            refused(QueueState {
                desc_table: outside,
                ..good
            }),
            Broken::Ring
        );
        assert_eq!(
            refused(QueueState {
                avail_ring: outside,
                ..good
            }),
            Broken::Ring
        );
        assert_eq!(
            refused(QueueState {
                used_ring: outside,
                ..good
            }),
            Broken::Ring
        );
    }
    assert_eq!(
        refused(QueueState {
            desc_table: 8,
            ..good
        }),
        Broken::Setup
    );
    assert_eq!(
        refused(QueueState {
            avail_ring: 1,
            ..good
        }),
        Broken::Setup
    );
    assert_eq!(
        refused(QueueState {
            used_ring: 2,
            ..good
        }),
        Broken::Setup
    );
    assert_eq!(refused(QueueState { size: 7, ..good }), Broken::Setup);
}

#[test]
fn a_disabled_queue_has_no_chains_wherever_its_rings_are() {
    let driver = Driver::new(8);
    let state = QueueState {
        ready: false,
        desc_table: !0xf,
        avail_ring: !0xf,
        used_ring: !0xf,
        ..driver.state()
    };
    let mut queue = Virtqueue::new(state, driver.mem()).unwrap();
    let served = queue.serve(driver.mem(), &mut Chain::default(), |_| unreachable!());
    assert_eq!(served, Ok(Progress::Idle));
    assert_eq!(queue.take_interrupt(driver.mem()), Ok(false));
}

#[test]
fn completions_appear_together_and_wrap_around() {
    let mut driver = Driver::new(4);
    let mut queue = driver.queue();
    queue
        .complete(driver.mem(), &[(0, 1), (1, 2), (2, 3)])
        .unwrap();
    assert_eq!(driver.used(), [(0, 1), (1, 2), (2, 3)]);
    queue.complete(driver.mem(), &[(3, 4), (0, 5)]).unwrap();
    assert_eq!(driver.used(), [(3, 4), (0, 5)]);
}

#[test]
fn a_driver_that_never_stops_is_served_in_turns() {
    let mut driver = Driver::new(8);
    let mut queue = driver.queue();
    driver.offer(&[(DATA, 1, Access::Write)]);
    let mut offers = 0;
    let served = queue.serve(&driver.mem().clone(), &mut Chain::default(), |_| {
        driver.publish(0);
        offers += 1;
        Ok(Outcome::Done(0))
    });
    assert_eq!(served, Ok(Progress::More));
    assert_eq!(offers, BUDGET);
}

#[test]
fn an_interrupt_is_due_once_for_each_batch() {
    let driver = Driver::new(8);
    let mut queue = driver.queue();
    assert_eq!(queue.take_interrupt(driver.mem()), Ok(false));
    queue.complete(driver.mem(), &[(0, 0), (1, 0)]).unwrap();
    assert_eq!(queue.take_interrupt(driver.mem()), Ok(true));
    assert_eq!(queue.take_interrupt(driver.mem()), Ok(false));
}

#[test]
fn the_no_interrupt_flag_is_honoured() {
    let driver = Driver::new(8);
    let mut queue = driver.queue();
    driver.want_no_interrupts();
    queue.complete(driver.mem(), &[(0, 0)]).unwrap();
    assert_eq!(queue.take_interrupt(driver.mem()), Ok(false));
}

#[test]
fn the_used_event_says_when_an_interrupt_is_due() {
    let driver = Driver::new(8).with_event_idx();
    let mut queue = driver.queue();
    driver.want_interrupt_at(2);
    for (completed, due) in [(0, false), (1, false), (2, true), (3, false)] {
        queue.complete(driver.mem(), &[(completed, 0)]).unwrap();
        assert_eq!(
            queue.take_interrupt(driver.mem()),
            Ok(due),
            "completion {completed}"
        );
    }
    driver.want_interrupt_at(5);
    queue
        .complete(driver.mem(), &[(4, 0), (5, 0), (6, 0)])
        .unwrap();
    assert_eq!(queue.take_interrupt(driver.mem()), Ok(true));
}

#[test]
fn listening_asks_for_a_kick_at_the_next_chain() {
    let mut driver = Driver::new(8).with_event_idx();
    let mut queue = driver.queue();
    for _ in 0..3 {
        driver.offer(&[(DATA, 1, Access::Write)]);
    }
    let served = queue.serve(driver.mem(), &mut Chain::default(), |_| {
        Ok(Outcome::Done(0))
    });
    assert_eq!(served, Ok(Progress::Idle));
    assert_eq!(driver.kick_wanted_at(), 3);
    driver.offer(&[(DATA, 1, Access::Write)]);
    assert_eq!(queue.listen(driver.mem()), Ok(true));
}
