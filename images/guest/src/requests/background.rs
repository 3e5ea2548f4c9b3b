//! Request Abort Background Operation (section 8.2.9.1.5).

use super::{Client, PATIENCE};
use crate::interface::{INVALID_INPUT, Refusal, SUCCESS};
use anyhow::{Result, bail};

const REQUEST_ABORT: u16 = 0x0005;

impl Client<'_> {
    /// Begins an operation again and again, until one is aborted before it has ended by itself.
    pub(super) fn aborted(&self, opcode: u16, input: &[u8]) -> Result<()> {
        for _ in 0..PATIENCE {
            self.begin(opcode, input)?;
            self.asked.borrow_mut().insert(REQUEST_ABORT);
            match self.interface.send(REQUEST_ABORT, &[])? {
                (SUCCESS, _) => return self.refused(REQUEST_ABORT, &[], INVALID_INPUT),
                (INVALID_INPUT, _) => {}
                (code, _) => bail!(Refusal {
                    opcode: REQUEST_ABORT,
                    code
                }),
            }
        }
        bail!("{opcode:#06x} has always ended before it was aborted");
    }
}
