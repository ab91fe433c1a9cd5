//! What can go wrong with a socket, and what to do about it.

use std::io;

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another process (or job) listens there.
    #[error(
        "cannot listen on {address}: the port is in use. Stop the process that listens there (`ss -ltnp` names it), choose another port, or port 0 for a free one"
    )]
    InUse {
        /// The address as given.
        address: String,
    },
    /// The port is reserved for privileged processes.
    #[error("cannot listen on {address}: permission denied. Choose a port from 1024 on")]
    Denied {
        /// The address as given.
        address: String,
    },
    /// The address is not one, or not this machine's.
    #[error(
        "cannot listen on {address}: {cause}. Give HOST:PORT with an address of this machine, such as 127.0.0.1:9000"
    )]
    Listen {
        /// The address as given.
        address: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

impl SocketError {
    /// An error of listening on `address`.
    pub(super) fn listen(address: &str, cause: io::Error) -> Self {
        let address = address.into();
        match cause.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Denied { address },
            _ => Self::Listen { address, cause },
        }
    }
}
