//! The mailbox in a configuration space that hands CDAT out (CXL 3.1 section 8.1.11).

use cxl::cdat::{Cdat, TableAccess};
use pci::{ConfigSpace, DoeMailbox, DoeProtocol, Written};

/// A table and the way to it.
pub(crate) struct CdatMailbox {
    mailbox: DoeMailbox,
    table: TableAccess,
}

impl CdatMailbox {
    /// Adds the mailbox to a configuration space.
    pub(crate) fn new(config: &mut ConfigSpace, table: Cdat) -> Self {
        let protocol = DoeProtocol {
            vendor: TableAccess::VENDOR,
            object_type: TableAccess::OBJECT_TYPE,
        };
        Self {
            mailbox: DoeMailbox::new(config, &[protocol]),
            table: TableAccess::new(table),
        }
    }

    /// Follows a write to the configuration space; true if it asked for a part of the table and got it.
    pub(crate) fn written(&mut self, config: &mut ConfigSpace, written: &Written) -> bool {
        let table = &self.table;
        let mut answered = false;
        self.mailbox.written(config, written, |_, request| {
            let response = table.respond(request);
            answered = response.is_some();
            response
        });
        answered
    }

    /// Back to reset. To be called after [`ConfigSpace::reset`].
    pub(crate) fn reset(&mut self) {
        self.mailbox.reset();
    }
}
