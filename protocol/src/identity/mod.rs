//! Who a device is: X.509 device certificates of tenant and personal accounts, and the one function that verifies them.
//!
//! This module does not decide who is admitted or revoked. `spec/identity.md`.

pub mod certificate;
pub mod contact;
pub mod directory;
pub mod host_port;
pub mod issue;
pub mod key;
pub mod key_file;
pub mod link;
pub mod name;
pub mod organisation;
pub mod ticket;

pub use certificate::{Chain, DeviceIdentity, IdentityError, verify_chain};
pub use contact::{Contact, ContactError, Invitee};
pub use directory::{DirectoryView, Freshness};
pub use host_port::{HostPort, HostPortError};
pub use issue::{CertificateAuthority, IssueError, IssuerKey, PersonalRoot, TenantRoot};
pub use key::{DeviceKey, Purpose, verify_signature};
pub use name::{Authority, DeviceName, Handle, HandleError, Role};
pub use organisation::{Domain, Organisation, OrganisationError};
pub use ticket::{Ticket, TicketError, TicketKind};
