use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};

use super::testing::*;
use super::*;
use crate::protocol::spec::{Submission, cmd, flags, ring};

pub fn floats(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

/// A buffer on the device with these bytes.
pub fn upload(client: &Client<'_>, bytes: &[u8]) -> u64 {
    let [address, ..] = client.ok(command(op::MEM_ALLOC, [bytes.len() as u64, 0, 0, 0]));
    let copy = command(op::MEM_COPY_HTOD, [address, 0, 0, 0]);
    client.ok(client.with(0, bytes, copy));
    address
}

pub fn download(client: &Client<'_>, address: u64, bytes: usize) -> Vec<u8> {
    let copy = command(op::MEM_COPY_DTOH, [address, 0, 0, 0]);
    client.ok(client.with(0x8000, &vec![0; bytes], copy));
    client.at(0x8000, bytes)
}

/// Parameters of the vector sum's kernel.
pub fn params(values: [u64; 4]) -> Vec<u8> {
    values.into_iter().flat_map(u64::to_le_bytes).collect()
}

#[test]
fn a_vector_sum_goes_through_the_rings() {
    let machine = Machine::new();
    let client = machine.client(0);
    let kernel = client.kernel(VECTOR_ADD, "vector_add");
    let n = 1000u32;
    let a = upload(&client, &floats((0..n).map(|i| i as f32)));
    let b = upload(&client, &floats((0..n).map(|i| (2 * i) as f32)));
    let c = upload(&client, &vec![0; 4 * n as usize]);
    let launch = launch(kernel, 8, 128);
    client.ok(client.with(0x100, &params([a, b, c, n.into()]), launch));
    assert_eq!(
        download(&client, c, 4 * n as usize),
        floats((0..n).map(|i| (3 * i) as f32))
    );
    let view = machine.device.view();
    let session = &view.sessions[&(client.session as u32)];
    assert_eq!(session.launches, 1);
    assert_eq!(session.kernels["vector_add"].launches, 1);
    assert_eq!((session.bytes_in, session.bytes_out), (12_000, 4_000));
    assert_eq!(session.memory, 12_000);
    assert_eq!(
        (session.modules, session.functions, session.regions),
        (1, 1, 1)
    );
    assert_eq!(session.queues.len(), 1);
}

#[test]
fn many_commands_are_in_flight_at_once_and_complete_in_order() {
    let machine = Machine::new();
    let client = machine.client(0);
    let kernel = client.kernel(".version 7.5\n.target sm_75\n.entry k() { ret; }", "k");
    for tag in 0..64 {
        let launch = Submission {
            tag,
            ..launch(kernel, 1, 32)
        };
        client.submit(0, &launch);
    }
    let mut last = 0;
    for tag in 0..64 {
        let completion = client.reap(0);
        assert_eq!((completion.tag, completion.result), (tag, 0));
        assert!(last <= completion.started && completion.started <= completion.ended);
        last = completion.ended;
    }
}

#[test]
fn a_queue_waits_for_another_of_its_session() {
    let machine = Machine::new();
    let mut client = machine.client(0);
    let second = client.add_queue(1);
    let number = u64::from(client.queues[0].number);
    let before = u64::from(client.run(command(op::NOP, [0; 4])).index) + 1;
    let wait = command(op::WAIT, [number, before + 1, 0, 0]);
    client.submit(second, &wait);
    let target = upload(&client, &[0; 8]);
    // The upload has completed two commands of the first queue.
    assert_eq!(client.reap(second).result, 0);
    let set = command(op::MEM_SET, [target, 0x1234, 2, 4]);
    client.submit(second, &set);
    assert_eq!(client.reap(second).result, 0);
    assert_eq!(download(&client, target, 8), [0x34, 0x12].repeat(4));
}

#[test]
fn a_full_completion_ring_waits_for_its_reader() {
    let machine = Machine::new();
    let client = machine.client(0);
    for tag in 0..64 {
        client.submit(
            0,
            &Submission {
                tag,
                ..command(op::NOP, [0; 4])
            },
        );
    }
    let first = client.reap(0);
    for tag in 64..100 {
        client.submit(
            0,
            &Submission {
                tag,
                ..command(op::NOP, [0; 4])
            },
        );
        client.reap(0);
    }
    assert_eq!(first.tag, 0);
    for tag in 37..100 {
        assert_eq!(client.reap(0).tag, tag);
    }
}

#[test]
fn a_log_says_why_a_text_is_refused() {
    let machine = Machine::new();
    let client = machine.client(0);
    let text = ".version 7.5\n.target sm_75\n.entry k() { frobnicate.u32 %r1; }";
    let load = command(op::MODULE_LOAD, [client.region.into(), 0x4000, 0x1000, 0]);
    let completion = client.run(client.with(0, text.as_bytes(), load));
    assert_eq!(completion.result, 218);
    let log = client.at(0x4000, completion.values[1] as usize);
    let log = String::from_utf8(log).unwrap();
    assert!(log.contains("frobnicate") && log.contains('3'), "{log}");
}

#[test]
fn symbols_tell_what_they_are() {
    let machine = Machine::new();
    let client = machine.client(0);
    let text = ".version 7.5\n.target sm_75\n.visible .global .u32 table[10];\n\
        .visible .entry k(.param .u8 a, .param .u64 b) .maxntid 64, 1, 1 { ret; }";
    let load = command(op::MODULE_LOAD, [0; 4]);
    let [module, ..] = client.ok(client.with(0, text.as_bytes(), load));
    let get = command(op::FUNC_GET, [module, 0, 0, 0]);
    let [function, params, bytes, _] = client.ok(client.with(0, b"k", get));
    assert_eq!((params, bytes), (2, 16));
    let table = command(op::FUNC_PARAMS, [function, 0, 0, 0]);
    assert_eq!(client.ok(client.with(0, &[0; 16], table))[0], 2);
    let numbers: Vec<u8> = client.at(0, 16).into_iter().step_by(4).collect();
    assert_eq!(numbers, [0, 1, 8, 8], "offset and bytes of each");
    let attributes = client.ok(command(op::FUNC_ATTRIBUTES, [function, 0, 0, 0]));
    assert_eq!((attributes[0] as u32, attributes[3]), (64, 75));
    let get = command(op::GLOBAL_GET, [module, 0, 0, 0]);
    let [address, bytes, ..] = client.ok(client.with(0, b"table", get));
    assert_eq!(bytes, 40);
    let range = client.ok(command(op::MEM_RANGE, [address + 39, 0, 0, 0]));
    assert_eq!(range[..2], [address, 40]);
    client.ok(command(op::MODULE_UNLOAD, [module, 0, 0, 0]));
    assert_eq!(client.run(launch(function, 1, 1)).result, 400);
}

#[test]
fn what_kernels_print_comes_in_pieces() {
    let machine = Machine::new();
    let client = machine.client(0);
    let text = ".version 7.5\n.target sm_75\n\
        .global .align 1 .b8 text[4] = {104, 105, 10, 0};\n\
        .extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);\n\
        .visible .entry k() { .reg .b64 %rd<2>; .reg .b32 %r<1>; mov.u64 %rd0, text;\n\
        cvta.global.u64 %rd1, %rd0; { .param .b64 p0; st.param.b64 [p0], %rd1; .param .b64 p1;\n\
        st.param.b64 [p1], 0; .param .b32 q; call.uni (q), vprintf, (p0, p1);\n\
        ld.param.b32 %r0, [q]; } ret; }";
    let kernel = client.kernel(text, "k");
    assert_eq!(client.ok(launch(kernel, 1, 2))[0], 6);
    let take = command(op::TAKE_OUTPUT, [0; 4]);
    assert_eq!(client.ok(client.with(0, &[0; 4], take))[0], 4);
    assert_eq!(client.at(0, 4), b"hi\nh");
    assert_eq!(client.ok(launch(kernel, 1, 1))[0], 5, "two are left");
    assert_eq!(client.ok(client.with(0, &[0; 64], take))[0], 2);
    assert_eq!(client.ok(client.with(0, &[0; 64], take))[0], 3);
    let quiet = client.kernel(".version 7.5\n.target sm_75\n.entry q() { ret; }", "q");
    assert_eq!(client.ok(launch(quiet, 1, 1))[0], 0);
}

#[test]
fn a_fault_ends_its_session_and_no_other() {
    let machine = Machine::new();
    let (client, other) = (machine.client(0), machine.client(1));
    let foreign = upload(&other, b"secret");
    let text = ".version 7.5\n.target sm_75\n.visible .entry k(.param .u64 p) {\n\
        .reg .b64 %rd<1>; .reg .b32 %r<1>; ld.param.u64 %rd0, [p]; ld.global.u32 %r0, [%rd0];\n\
        st.global.u32 [%rd0], %r0; ret; }";
    let kernel = client.kernel(text, "k");
    let launch = launch(kernel, 1, 1);
    let command_at = |address: u64| client.with(0, &address.to_le_bytes(), launch);
    assert_eq!(client.run(command_at(foreign)).result, 700);
    assert_eq!(client.run(command(op::NOP, [0; 4])).result, 700);
    assert_eq!(client.run(command(op::MEM_ALLOC, [1, 0, 0, 0])).result, 700);
    assert_eq!(other.run(command(op::NOP, [0; 4])).result, 0);
    assert_eq!(download(&other, foreign, 6), b"secret");
}

#[test]
fn closing_a_session_ends_its_kernel_and_frees_everything() {
    let machine = Machine::with_watchdog(None);
    let free = machine.device.backend().available();
    let client = machine.client(0);
    let kernel = client.kernel(SPIN, "spin");
    upload(&client, &[1; 4096]);
    client.submit(0, &launch(kernel, 1, 1));
    assert_eq!(client.close(), 0);
    assert_eq!(machine.device.backend().available(), free);
    assert!(machine.device.view().sessions.is_empty());
    let args = [client.session, 0, 0, 0];
    assert_eq!(machine.control(control::SESSION_CLOSE, args).result, 400);
}

#[test]
fn the_watchdog_ends_a_kernel_that_does_not() {
    let machine = Machine::with_watchdog(Some(Duration::from_millis(50)));
    let client = machine.client(0);
    let kernel = client.kernel(SPIN, "spin");
    assert_eq!(client.run(launch(kernel, 1, 32)).result, 702);
}

#[test]
fn mapped_memory_is_not_freed() {
    let machine = Machine::new();
    let client = machine.client(0);
    let alloc = Submission {
        flags: flags::MAPPABLE,
        ..command(op::MEM_ALLOC, [5000, 0, 0, 0])
    };
    let [address, ..] = client.ok(alloc);
    let pin = |code, address, bytes| {
        let reply = machine.control(code, [client.session, address, bytes, 0]);
        (reply.result, reply.outs[0])
    };
    let offset = address - crate::memory::BASE;
    assert_eq!(pin(control::PIN, address, 8192), (0, offset));
    assert_eq!(pin(control::PIN, address + 4096, 4096), (0, offset + 4096));
    let free = command(op::MEM_FREE, [address, 0, 0, 0]);
    assert_eq!(client.run(free).result, 1);
    for (address, bytes) in [
        (address, 12288),
        (address + 1, 4096),
        (address, 1),
        (address, 0),
        (address, !4095),
        (0, 4096),
    ] {
        assert_ne!(
            pin(control::PIN, address, bytes).0,
            0,
            "{address:#x} {bytes}"
        );
    }
    assert_eq!(pin(control::UNPIN, address, 8192).0, 0);
    assert_eq!(client.run(free).result, 1);
    assert_eq!(pin(control::UNPIN, address + 4096, 4096).0, 0);
    assert_eq!(pin(control::UNPIN, address, 4096).0, 1);
    assert_eq!(client.run(free).result, 0);
    let [ordinary, ..] = client.ok(command(op::MEM_ALLOC, [8192, 0, 0, 0]));
    assert_ne!(
        pin(control::PIN, ordinary.next_multiple_of(4096), 4096).0,
        0
    );
}

#[test]
fn guest_memory_is_not_touched_after_a_reset() {
    let machine = Machine::with_watchdog(None);
    let client = machine.client(0);
    let kernel = client.kernel(SPIN, "spin");
    client.submit(0, &launch(kernel, 1, 1));
    client.submit(0, &command(op::NOP, [0; 4]));
    machine.device.reset();
    let (base, bytes) = (client.queues[0].base, 0x4000);
    let pattern = vec![0xa5; bytes];
    let memory = machine.memory.memory();
    memory.write_slice(&pattern, GuestAddress(base)).unwrap();
    // The number comes free when the queue's thread has ended.
    while machine.device.view().sessions.contains_key(&1) {
        machine.device.close_sessions();
    }
    let mut after = vec![0; bytes];
    memory.read_slice(&mut after, GuestAddress(base)).unwrap();
    assert_eq!(after, pattern);
    assert_eq!(machine.ask(control::SESSION_OPEN, [0; 4]), 2);
}

#[test]
fn a_paused_device_takes_no_commands_up() {
    let machine = Machine::new();
    let client = machine.client(0);
    machine.device.pause();
    for _ in 0..3 {
        client.submit(0, &command(op::NOP, [0; 4]));
    }
    let queue = || machine.device.view().sessions[&1].queues[0].clone();
    while queue().doorbells == 0 {
        std::thread::yield_now();
    }
    assert_eq!((queue().completed, queue().waiting), (0, 3));
    machine.device.resume();
    for _ in 0..3 {
        assert_eq!(client.reap(0).result, 0);
    }
    // The count comes a moment after the completion.
    while queue().completed != 3 {
        std::thread::yield_now();
    }
    assert_eq!(queue().waiting, 0);
    let QueueView {
        doorbells,
        interrupts,
        ..
    } = queue();
    // The driver rings at most once for each command and once for each completion it takes; the resumption wakes once.
    assert!((1..=7).contains(&doorbells), "{doorbells}");
    assert!(interrupts <= 3, "{interrupts}");
}

#[test]
fn control_commands_refuse_what_they_should() {
    let machine = Machine::new();
    let client = machine.client(0);
    let session = client.session;
    let data = client.data;
    for (code, args, result) in [
        (0, [0; 4], 801),
        (99, [0; 4], 801),
        (control::SESSION_CLOSE, [99, 0, 0, 0], 400),
        (control::SESSION_CLOSE, [1 << 32 | session, 0, 0, 0], 400),
        (control::QUEUE_CREATE, [99, RINGS, 64, 0], 400),
        (control::QUEUE_CREATE, [session, GUEST, 64, 0], 1),
        (control::QUEUE_CREATE, [session, RINGS, 64, 64], 1),
        (control::QUEUE_CREATE, [session, RINGS, 65, 0], 1),
        (control::QUEUE_DESTROY, [99, 0, 0, 0], 400),
        (control::REGION_REGISTER, [session, data, 0, 0], 1),
        (control::REGION_REGISTER, [session, data, 1, 2], 1),
        (control::REGION_UNREGISTER, [session, 99, 0, 0], 400),
        (control::UNPIN, [session, crate::memory::BASE, 4096, 0], 1),
    ] {
        assert_eq!(
            machine.control(code, args).result,
            result,
            "{code} {args:x?}"
        );
    }
    let args = [session, client.region.into(), 0, 0];
    assert_eq!(machine.control(control::REGION_UNREGISTER, args).result, 0);
    let copy = client.with(0, &[0; 8], command(op::MEM_COPY_HTOD, [0; 4]));
    assert_eq!(client.run(copy).result, 400);
}

#[test]
fn there_are_so_many_queues_and_sessions_and_no_more() {
    let machine = Machine::new();
    let session = machine.ask(control::SESSION_OPEN, [0; 4]);
    let create = |vector: u64| {
        let args = [session, RINGS, 64, vector];
        machine.control(control::QUEUE_CREATE, args)
    };
    let numbers: Vec<u64> = (0..64).map(|vector| create(vector).outs[0]).collect();
    assert_eq!(numbers, (0..64).collect::<Vec<_>>());
    assert_eq!(create(0).result, 701);
    assert_eq!(machine.insist(control::QUEUE_DESTROY, [5, 0, 0, 0]), 0);
    assert_eq!(create(5).outs[0], 5);
    for _ in 1..64 {
        machine.ask(control::SESSION_OPEN, [0; 4]);
    }
    assert_eq!(machine.control(control::SESSION_OPEN, [0; 4]).result, 701);
}

/// Version 1 over the data buffer `data`.
struct Legacy<'a> {
    device: &'a Device,
    data: &'a mut [u8],
}

impl Legacy<'_> {
    fn run(&mut self, code: u32, params: &[u64]) -> (u32, u64) {
        let mut command = Command {
            code,
            params: [0; 8],
            serial: 1,
        };
        command.params[..params.len()].copy_from_slice(params);
        let outcome = self
            .device
            .command(&command, VolatileSlice::from(&mut *self.data));
        (outcome.result, outcome.results[0])
    }

    fn ok(&mut self, code: u32, params: &[u64]) -> u64 {
        let (result, answer) = self.run(code, params);
        assert_eq!(result, 0, "command {code:#x}");
        answer
    }

    fn put(&mut self, bytes: &[u8]) {
        self.data[..bytes.len()].copy_from_slice(bytes);
        self.data[bytes.len()] = 0;
    }
}

#[test]
fn a_vector_sum_goes_through_version_1() {
    let machine = Machine::new();
    let mut data = vec![0; 0xf000];
    let mut legacy = Legacy {
        device: &machine.device,
        data: &mut data,
    };
    legacy.ok(cmd::INIT, &[]);
    assert_eq!(legacy.ok(cmd::GET_DEVICE_COUNT, &[]), 1);
    legacy.ok(cmd::CTX_CREATE, &[]);
    let n = 512;
    let buffers = [0, 1, 2].map(|_| legacy.ok(cmd::MEM_ALLOC, &[4 * n]));
    for (factor, buffer) in [1, 10].into_iter().zip(buffers) {
        legacy.put(&floats((0..n).map(|i| (i * factor) as f32)));
        legacy.ok(cmd::MEM_COPY_HTOD, &[buffer, 4 * n]);
    }
    legacy.put(VECTOR_ADD.as_bytes());
    let module = legacy.ok(cmd::MODULE_LOAD_PTX, &[]);
    legacy.put(b"vector_add");
    let function = legacy.ok(cmd::FUNC_GET, &[module]);
    let [a, b, c] = buffers;
    let slots: Vec<u8> = [a, b, c, n]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    legacy.put(&slots);
    // Grid 4 1 1, block 128 1 1, four arguments, no dynamic shared memory.
    let launch = [function, 1 << 32 | 4, 128 << 32 | 1, 1 << 32 | 1, 4 << 32];
    legacy.ok(cmd::LAUNCH_KERNEL, &launch);
    legacy.ok(cmd::CTX_SYNC, &[]);
    legacy.ok(cmd::MEM_COPY_DTOH, &[c, 4 * n]);
    assert_eq!(
        legacy.data[..4 * n as usize],
        floats((0..n).map(|i| (11 * i) as f32))
    );
    for buffer in buffers {
        legacy.ok(cmd::MEM_FREE, &[buffer]);
    }
    assert_eq!(machine.device.view().sessions[&0].launches, 1);
}

#[test]
fn version_1_answers_with_cudas_numbers() {
    let machine = Machine::new();
    let free = machine.device.backend().available();
    let mut data = vec![0; 0xf000];
    let mut legacy = Legacy {
        device: &machine.device,
        data: &mut data,
    };
    assert_eq!(legacy.run(cmd::GET_DEVICE_COUNT, &[]).0, 3);
    legacy.ok(cmd::INIT, &[]);
    assert_eq!(legacy.run(cmd::MEM_ALLOC, &[64]).0, 201);
    assert_eq!(legacy.run(cmd::CTX_DESTROY, &[]).0, 201);
    legacy.ok(cmd::CTX_CREATE, &[]);
    assert_eq!(legacy.run(0x7f, &[]).0, 1);
    assert_eq!(legacy.run(cmd::MEM_ALLOC, &[0]).0, 1);
    assert_eq!(legacy.run(cmd::MEM_ALLOC, &[1 << 40]).0, 2);
    assert_eq!(legacy.run(cmd::MEM_FREE, &[64]).0, 1);
    let buffer = legacy.ok(cmd::MEM_ALLOC, &[64]);
    for bytes in [65, 0xf001, u64::MAX] {
        assert_eq!(legacy.run(cmd::MEM_COPY_HTOD, &[buffer, bytes]).0, 1);
        assert_eq!(legacy.run(cmd::MEM_COPY_DTOH, &[buffer, bytes]).0, 1);
    }
    legacy.put(b"this is no PTX");
    assert_eq!(legacy.run(cmd::MODULE_LOAD_PTX, &[]).0, 218);
    assert!(
        legacy.data.starts_with(b"line 1"),
        "{:?}",
        &legacy.data[..40]
    );
    legacy.put(VECTOR_ADD.as_bytes());
    let module = legacy.ok(cmd::MODULE_LOAD_PTX, &[]);
    legacy.put(b"no_such_kernel");
    assert_eq!(legacy.run(cmd::FUNC_GET, &[module]).0, 500);
    assert_eq!(legacy.run(cmd::FUNC_GET, &[99]).0, 400);
    assert_eq!(legacy.run(cmd::LAUNCH_KERNEL, &[99]).0, 400);
    legacy.put(b"vector_add");
    let function = legacy.ok(cmd::FUNC_GET, &[module]);
    let launch = [function, 1 << 32 | 1, 1 << 32 | 1, 1 << 32 | 1, 3 << 32];
    assert_eq!(
        legacy.run(cmd::LAUNCH_KERNEL, &launch).0,
        1,
        "three of four"
    );
    legacy.ok(cmd::CTX_DESTROY, &[]);
    assert_eq!(machine.device.backend().available(), free);
}

#[test]
fn a_reset_ends_the_kernel_of_version_1() {
    let machine = Machine::with_watchdog(None);
    let mut data = vec![0; 0xf000];
    let mut legacy = Legacy {
        device: &machine.device,
        data: &mut data,
    };
    legacy.ok(cmd::INIT, &[]);
    legacy.ok(cmd::CTX_CREATE, &[]);
    legacy.put(SPIN.as_bytes());
    let module = legacy.ok(cmd::MODULE_LOAD_PTX, &[]);
    legacy.put(b"spin");
    let function = legacy.ok(cmd::FUNC_GET, &[module]);
    let one = 1 << 32 | 1;
    std::thread::scope(|scope| {
        let launch = scope.spawn(|| legacy.run(cmd::LAUNCH_KERNEL, &[function, one, one, one]).0);
        machine.device.reset();
        let result = launch.join().unwrap();
        assert!([702, 201, 3].contains(&result), "{result}");
    });
}

#[test]
fn a_queue_whose_indices_make_no_sense_stops() {
    let machine = Machine::new();
    let client = machine.client(0);
    client.set_index(0, ring::SQ_TAIL, 1000);
    client.doorbell(0);
    assert_eq!(client.stopped(0), 1);
    assert_eq!(client.close(), 0);
}
