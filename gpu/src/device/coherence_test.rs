//! What clients say of the bias of their memory, and what the device tells of its accesses.

use super::testing::*;
use super::tests::{download, floats, params, upload};
use super::*;
use crate::coherence::Coherence;
use crate::protocol::spec::{Submission, flags};

/// Tells what it was asked.
#[derive(Debug, Default)]
struct Account {
    said: Mutex<Vec<String>>,
}

impl Coherence for Account {
    fn access(&self, offset: u64, bytes: u64, write: bool) {
        let what = if write { "write" } else { "read" };
        self.say(format!("{what} {offset:#x} {bytes}"));
    }

    fn boundary(&self) {
        self.say("boundary".into());
    }

    fn renew(&self, offset: u64, bytes: u64, zero: &mut dyn FnMut()) {
        zero();
        self.say(format!("renew {offset:#x} {bytes}"));
    }

    fn set_bias(&self, offset: u64, bytes: u64, device: bool) -> Result<u64, Error> {
        self.say(format!("bias {offset:#x} {bytes} {device}"));
        Ok(2)
    }

    fn flip_bias(&self, offset: u64, bytes: u64) -> Result<u64, Error> {
        self.say(format!("flip {offset:#x} {bytes}"));
        Ok(1)
    }

    fn is_device_biased(&self, offset: u64) -> bool {
        offset == 4096
    }

    fn statistics(&self) -> Vec<u64> {
        (100..126).collect()
    }
}

impl Account {
    fn say(&self, what: String) {
        self.said.lock().unwrap().push(what);
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().unwrap())
    }
}

#[test]
fn bias_is_set_for_pages_of_the_clients_own_and_counters_are_told() {
    let account = Arc::new(Account::default());
    let machine = Machine::coherent(account.clone(), false);
    let client = machine.client(0);
    let mappable = Submission {
        flags: flags::MAPPABLE,
        ..command(op::MEM_ALLOC, [8192, 0, 0, 0])
    };
    let [own, ..] = client.ok(mappable);
    assert_eq!(own, crate::memory::BASE);
    assert_eq!(account.said(), ["renew 0x0 8192"]);
    let bias = |opcode, address, bytes, bias| {
        let done = client.run(command(opcode, [address, bytes, bias, 0]));
        (done.result, done.values[0])
    };
    assert_eq!(bias(op::BIAS_SET, own, 8192, 1), (0, 2));
    assert_eq!(bias(op::BIAS_SET, own + 4096, 4096, 0), (0, 2));
    assert_eq!(bias(op::BIAS_FLIP, own, 4096, 0), (0, 1));
    let said = [
        "bias 0x0 8192 true",
        "bias 0x1000 4096 false",
        "flip 0x0 4096",
    ];
    assert_eq!(account.said(), said);
    assert_eq!(bias(op::BIAS_GET, own + 100, 0, 0), (0, 0));
    assert_eq!(bias(op::BIAS_GET, own + 4097, 0, 0), (0, 1));

    // Memory that is not mappable shares its pages with others.
    let [plain, ..] = client.ok(command(op::MEM_ALLOC, [8192, 0, 0, 0]));
    account.said();
    for (address, bytes, to) in [
        (own, 8192, 2),
        (own, 12288, 1),
        (own, 100, 1),
        (own + 1, 4096, 1),
        (own, 0, 1),
        (own, u64::MAX - 4095, 1),
        (plain.next_multiple_of(4096), 4096, 1),
        (0, 4096, 1),
        (!4095, 4096, 1),
    ] {
        let result = bias(op::BIAS_SET, address, bytes, to).0;
        assert_eq!(result, 1, "{address:#x} {bytes} {to}");
    }
    let other = machine.client(1);
    let foreign = command(op::BIAS_FLIP, [own, 4096, 0, 0]);
    assert_eq!(other.run(foreign).result, 1);
    assert_eq!(account.said(), Vec::<String>::new());

    let ask = client.with(64, &[0; 32], command(op::COHERENCE_STATISTICS, [0; 4]));
    assert_eq!(client.ok(ask)[0], 26);
    let expected: Vec<u8> = (100_u64..104).flat_map(u64::to_le_bytes).collect();
    assert_eq!(client.at(64, 32), expected, "as many as find room");
    let counter = |index| {
        let reply = machine.control(control::COHERENCE_STATISTIC, [index, 0, 0, 0]);
        (reply.result, reply.outs[0])
    };
    assert_eq!([counter(0), counter(25)], [(0, 100), (0, 125)]);
    assert_eq!([counter(26), counter(u64::MAX)], [(1, 0); 2]);
    assert_eq!(machine.device.view().coherence["link_bytes"], 123);
}

#[test]
fn every_access_is_told_where_that_is_asked_for() {
    let account = Arc::new(Account::default());
    let machine = Machine::coherent(account.clone(), true);
    let client = machine.client(0);
    let buffers = [0; 3].map(|_| upload(&client, &floats([1.0, 2.0].into_iter())));
    let [a, b, c] = buffers;
    let kernel = client.kernel(VECTOR_ADD, "vector_add");
    account.said();
    let launch = launch(kernel, 1, 2);
    client.ok(client.with(0, &params([a, b, c, 2]), launch));
    let mut said = account.said();
    // The commands that reach device memory lie between two boundaries each.
    assert_eq!([&said[0], &said[said.len() - 1]], ["boundary"; 2]);
    said.retain(|what| what != "boundary");
    said.sort();
    let at = |buffer: u64| buffer - crate::memory::BASE;
    let mut expected: Vec<String> = [(a, "read"), (b, "read"), (c, "write")]
        .iter()
        .flat_map(|&(buffer, what)| [0, 4].map(|i| format!("{what} {:#x} 4", at(buffer) + i)))
        .collect();
    expected.sort();
    assert_eq!(said, expected);
    assert_eq!(download(&client, c, 8), floats([2.0, 4.0].into_iter()));
    let read = format!("read {:#x} 8", at(c));
    assert_eq!(account.said(), ["boundary", &read, "boundary"]);
    client.ok(command(op::MEM_SET, [a, 7, 4, 2]));
    client.ok(command(op::MEM_COPY_DTOD, [b, a, 8, 0]));
    let said = [(a, "write"), (a, "read"), (b, "write")];
    let [set, read, write] = said.map(|(buffer, what)| format!("{what} {:#x} 8", at(buffer)));
    let between = "boundary".to_string();
    assert_eq!(
        account.said(),
        [&between, &set, &between, &between, &read, &write, &between].map(String::clone)
    );
}

#[test]
fn a_device_without_an_account_has_no_bias() {
    let machine = Machine::new();
    let client = machine.client(0);
    for opcode in [
        op::BIAS_SET,
        op::BIAS_GET,
        op::BIAS_FLIP,
        op::COHERENCE_STATISTICS,
    ] {
        let command = client.with(
            0,
            &[0; 8],
            command(opcode, [crate::memory::BASE, 4096, 0, 0]),
        );
        assert_eq!(client.run(command).result, 801);
    }
    let reply = machine.control(control::COHERENCE_STATISTIC, [0; 4]);
    assert_eq!(reply.result, 801);
    assert!(machine.device.view().coherence.is_empty());
}
