//! Data Object Exchange: a mailbox in configuration space (6.30, 7.9.24).

use crate::config::ConfigSpace;
use crate::spec::extended;
use crate::structure::Structure;
use crate::written::Written;

/// Bytes of the capability (7.9.24).
const LENGTH: u16 = 0x18;
/// 32 bits: abort, interrupt enable, go (7.9.24.3). Abort and go read as zero.
const CONTROL: u16 = 0x08;
const ABORT: u32 = 1 << 0;
const GO: u32 = 1 << 31;
/// 32 bits, RO but for the interrupt status (7.9.24.4).
const STATUS: u16 = 0x0c;
const ERROR: u32 = 1 << 2;
const READY: u32 = 1 << 31;
/// 32 bits, write only (7.9.24.5).
const WRITE_MAILBOX: u16 = 0x10;
/// 32 bits; a read gives the present dword, a write moves on to the next (7.9.24.6).
const READ_MAILBOX: u16 = 0x14;

/// Dwords of the data object header: vendor and type, then length (6.30.1).
const HEADER_DWORDS: usize = 2;
/// The length field has 18 bits; 0 means 2^18 dwords (6.30.1).
const LENGTH_MASK: u32 = (1 << 18) - 1;
/// The longest request that is taken, in dwords: more than any protocol here asks.
const MAX_REQUEST: usize = 256;
/// The longest response, in dwords.
const MAX_RESPONSE: usize = 1 << 18;

/// Names a protocol: vendor and data object type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoeProtocol {
    pub vendor: u16,
    pub object_type: u8,
}

impl DoeProtocol {
    /// Lists the protocols of a mailbox; every mailbox has it (6.30.1.1).
    pub const DISCOVERY: Self = Self {
        vendor: 0x0001,
        object_type: 0,
    };

    fn header(self) -> u32 {
        u32::from(self.vendor) | u32::from(self.object_type) << 16
    }
}

/// One DOE mailbox.
///
/// Requests are answered at once, so Busy is never seen set. Interrupts are not offered.
#[derive(Clone, Debug)]
pub struct DoeMailbox {
    offset: u16,
    protocols: Vec<DoeProtocol>,
    request: Vec<u32>,
    response: Vec<u32>,
    /// Next dword of `response` to be read.
    next: usize,
}

impl DoeMailbox {
    /// Adds the capability for these protocols; discovery comes by itself, as the first.
    ///
    /// # Panics
    /// If there are more than 254 protocols.
    pub fn new(config: &mut ConfigSpace, protocols: &[DoeProtocol]) -> Self {
        assert!(
            protocols.len() < 255,
            "discovery counts protocols in one byte"
        );
        let offset = Structure::new(LENGTH).add_extended_to(config, extended::DOE, 1);
        let protocols = [&[DoeProtocol::DISCOVERY], protocols].concat();
        Self {
            offset,
            protocols,
            request: Vec::new(),
            response: Vec::new(),
            next: 0,
        }
    }

    /// Follows a configuration write. When the guest rings Go with a well-formed request for one of the protocols but
    /// discovery, `respond` gets the dwords behind the header and gives those of the response, at most 2^18 - 2, or
    /// `None` if it cannot make sense of the request, which discards it without a response (6.30.2).
    pub fn written(
        &mut self,
        config: &mut ConfigSpace,
        written: &Written,
        respond: impl FnOnce(DoeProtocol, &[u32]) -> Option<Vec<u32>>,
    ) {
        let control = written.data(self.offset + CONTROL);
        if control & ABORT != 0 {
            self.clear();
            self.set_status(config, 0);
        } else if control & GO != 0 {
            self.go(config, respond);
        } else if written.touches(self.offset + WRITE_MAILBOX, 4) {
            self.push(config, written.data(self.offset + WRITE_MAILBOX));
        } else if written.touches(self.offset + READ_MAILBOX, 4) && self.next < self.response.len()
        {
            self.next += 1;
            self.show(config);
        }
    }

    /// Back to reset: no request, no response. To be called after [`ConfigSpace::reset`].
    pub fn reset(&mut self) {
        self.clear();
    }

    fn clear(&mut self) {
        self.request.clear();
        self.response.clear();
        self.next = 0;
    }

    /// Takes one dword of a request. One that does not fit, or comes before the last response was read, is an error.
    fn push(&mut self, config: &mut ConfigSpace, dword: u32) {
        if self.status(config) & (ERROR | READY) != 0 || self.request.len() == MAX_REQUEST {
            return self.set_status(config, ERROR);
        }
        self.request.push(dword);
    }

    fn go(
        &mut self,
        config: &mut ConfigSpace,
        respond: impl FnOnce(DoeProtocol, &[u32]) -> Option<Vec<u32>>,
    ) {
        if self.status(config) & (ERROR | READY) != 0 {
            return self.set_status(config, ERROR);
        }
        let request = std::mem::take(&mut self.request);
        let Some((protocol, body)) = self.parse(&request) else {
            return self.set_status(config, ERROR);
        };
        let answer = if protocol == DoeProtocol::DISCOVERY {
            self.discover(body)
        } else {
            respond(protocol, body)
        };
        let Some(answer) = answer.filter(|answer| answer.len() <= MAX_RESPONSE - HEADER_DWORDS)
        else {
            return self.set_status(config, ERROR);
        };
        let length = (answer.len() + HEADER_DWORDS) as u32 & LENGTH_MASK;
        self.response = [&[protocol.header(), length], answer.as_slice()].concat();
        self.next = 0;
        self.show(config);
    }

    /// Protocol and body of a request whose length field agrees with what was written.
    fn parse<'r>(&self, request: &'r [u32]) -> Option<(DoeProtocol, &'r [u32])> {
        let (&[head, length], body) = request.split_first_chunk::<HEADER_DWORDS>()?;
        let protocol = self
            .protocols
            .iter()
            .find(|protocol| protocol.header() == head & 0x00ff_ffff)?;
        (length & LENGTH_MASK == request.len() as u32).then_some((*protocol, body))
    }

    /// Answers the protocol at the index asked for and the index of the next, 0 after the last (6.30.1.1).
    fn discover(&self, body: &[u32]) -> Option<Vec<u32>> {
        let index = (body.first()? & 0xff) as usize;
        let protocol = self.protocols.get(index)?;
        let next = if index + 1 < self.protocols.len() {
            index as u32 + 1
        } else {
            0
        };
        Some(vec![protocol.header() | next << 24])
    }

    /// Puts the present dword of the response in the read mailbox, and says whether there is one.
    fn show(&mut self, config: &mut ConfigSpace) {
        let present = self.response.get(self.next).copied();
        config.set_u32(self.offset + READ_MAILBOX, present.unwrap_or(0));
        self.set_status(config, if present.is_some() { READY } else { 0 });
    }

    fn status(&self, config: &ConfigSpace) -> u32 {
        config.u32(self.offset + STATUS)
    }

    /// A response is not to be read while the error bit is set (6.30.2).
    fn set_status(&mut self, config: &mut ConfigSpace, status: u32) {
        config.set_u32(self.offset + STATUS, status);
        if status != READY {
            self.clear();
            config.set_u32(self.offset + READ_MAILBOX, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Effect;
    use crate::testing::{ids, read_u32, rule, walk};

    const CDAT: DoeProtocol = DoeProtocol {
        vendor: 0x1e98,
        object_type: 2,
    };
    const CMA: DoeProtocol = DoeProtocol {
        vendor: 0x0001,
        object_type: 1,
    };

    struct Guest {
        config: ConfigSpace,
        doe: DoeMailbox,
    }

    impl Guest {
        fn new() -> Self {
            let mut config = ConfigSpace::endpoint(ids(0x0d93, 0x05_02_10));
            let doe = DoeMailbox::new(&mut config, &[CDAT, CMA]);
            Self { config, doe }
        }

        /// The handler answers each dword with its complement, and refuses an empty body.
        fn write(&mut self, register: u16, value: u32) {
            let mut out: Vec<Effect> = Vec::new();
            let offset = self.doe.offset + register;
            let Some(written) = self.config.write(offset, &value.to_le_bytes(), &mut out) else {
                return;
            };
            self.doe.written(&mut self.config, &written, |_, body| {
                (!body.is_empty()).then(|| body.iter().map(|dword| !dword).collect())
            });
        }

        fn status(&self) -> u32 {
            read_u32(&self.config, self.doe.offset + STATUS)
        }

        fn ask(&mut self, request: &[u32]) {
            for &dword in request {
                self.write(WRITE_MAILBOX, dword);
            }
            self.write(CONTROL, GO);
        }

        fn answer(&mut self) -> Vec<u32> {
            let mut answer = Vec::new();
            while self.status() & READY != 0 {
                answer.push(read_u32(&self.config, self.doe.offset + READ_MAILBOX));
                self.write(READ_MAILBOX, 0);
            }
            answer
        }
    }

    #[test]
    fn registers_follow_their_access_rules() {
        let mut guest = Guest::new();
        let base = guest.doe.offset;
        walk(
            &mut guest.config,
            base,
            &[
                rule("header", 0, 0x0001_002e, 0, 0),
                rule("capabilities", 4, 0, 0, 0),
                rule("control", 8, 0, 0, 0),
                rule("status", 12, 0, 0, 0),
                rule("write mailbox", 16, 0, 0, 0),
                rule("read mailbox", 20, 0, 0, 0),
            ],
        );
    }

    #[test]
    fn discovery_lists_every_protocol_once() {
        let mut guest = Guest::new();
        let mut index = 0;
        let mut seen = Vec::new();
        loop {
            guest.ask(&[0x0000_0001, 3, index]);
            let answer = guest.answer();
            assert_eq!(answer[..2], [0x0000_0001, 3]);
            seen.push(answer[2] & 0x00ff_ffff);
            index = answer[2] >> 24;
            if index == 0 {
                break;
            }
        }
        assert_eq!(seen, [0x0000_0001, 0x0002_1e98, 0x0001_0001]);
        guest.ask(&[0x0000_0001, 3, 3]);
        assert_eq!(guest.status(), ERROR, "beyond the last");
    }

    #[test]
    fn a_request_is_answered_dword_by_dword() {
        let mut guest = Guest::new();
        guest.ask(&[0x0002_1e98, 4, 0x1234, 0x5678]);
        assert_eq!(guest.status(), READY);
        assert_eq!(guest.answer(), [0x0002_1e98, 4, !0x1234, !0x5678]);
        assert_eq!(guest.status(), 0);
        assert_eq!(read_u32(&guest.config, guest.doe.offset + READ_MAILBOX), 0);
        guest.ask(&[0x0002_1e98, 3, 0]);
        assert_eq!(guest.answer(), [0x0002_1e98, 3, u32::MAX], "and the next");
    }

    #[test]
    fn bad_requests_set_the_error_bit_until_aborted() {
        let bad: [&[u32]; 6] = [
            &[],
            &[0x0002_1e98],
            &[0x0002_1e98, 4, 0],
            &[0x0003_1e98, 3, 0],
            &[0x0002_1e98, 2],
            &[0x0002_1e98, 0, 0],
        ];
        for request in bad {
            let mut guest = Guest::new();
            guest.ask(request);
            assert_eq!(guest.status(), ERROR, "{request:x?}");
            assert_eq!(guest.answer(), []);
            guest.ask(&[0x0002_1e98, 3, 0]);
            assert_eq!(guest.status(), ERROR, "{request:x?}: still");
            guest.write(CONTROL, ABORT);
            assert_eq!(guest.status(), 0);
            guest.ask(&[0x0002_1e98, 3, 0]);
            assert_eq!(guest.status(), READY, "{request:x?}: usable again");
        }
    }

    #[test]
    fn a_request_before_the_answer_was_read_is_an_error() {
        let mut guest = Guest::new();
        guest.ask(&[0x0002_1e98, 3, 0]);
        guest.write(WRITE_MAILBOX, 0);
        assert_eq!(guest.status(), ERROR);
        guest.write(CONTROL, ABORT);
        guest.ask(&[0x0002_1e98, 3, 0]);
        guest.write(CONTROL, GO);
        assert_eq!(guest.status(), ERROR);
    }

    #[test]
    fn a_request_without_end_takes_no_memory_without_end() {
        let mut guest = Guest::new();
        for _ in 0..MAX_REQUEST {
            guest.write(WRITE_MAILBOX, 0);
        }
        assert_eq!(guest.status(), 0);
        guest.write(WRITE_MAILBOX, 0);
        assert_eq!(guest.status(), ERROR);
        assert!(guest.doe.request.is_empty());
    }

    #[test]
    fn an_answer_that_is_too_long_is_an_error() {
        let mut guest = Guest::new();
        for dword in [0x0002_1e98, 3, 0] {
            guest.write(WRITE_MAILBOX, dword);
        }
        let mut out: Vec<Effect> = Vec::new();
        let go = GO.to_le_bytes();
        let written = guest
            .config
            .write(guest.doe.offset + CONTROL, &go, &mut out)
            .expect("a dword");
        guest.doe.written(&mut guest.config, &written, |_, _| {
            Some(vec![0; MAX_RESPONSE - 1])
        });
        assert_eq!(guest.status(), ERROR);
    }

    #[test]
    fn an_abort_drops_request_and_answer() {
        let mut guest = Guest::new();
        guest.write(WRITE_MAILBOX, 0xdead_beef);
        guest.write(CONTROL, ABORT);
        guest.ask(&[0x0002_1e98, 3, 0]);
        assert_eq!(guest.status(), READY, "the stray dword is gone");
        guest.write(CONTROL, ABORT);
        assert_eq!(guest.answer(), []);
    }
}
