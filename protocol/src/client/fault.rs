//! Why the client machine does not do what its host wants, in words that say what to do.
//!
//! This module does not decide; [`super::machine`] and the files beside it do.

use crate::{error::Refusal, escrow::ReceiptError, identity::Domain, ids::RootHash, mls::PolicyError, time::Timestamp};

/// Why a command was not done. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientFault {
    /// No such group on this device.
    #[error("no such group on this device")]
    UnknownGroup,
    /// This device is not an active member.
    #[error("this device is not a member of the group")]
    NotMember,
    /// The account is in the group already.
    #[error("the account is a member already")]
    AlreadyMember,
    /// The account is not in the group.
    #[error("the account is not a member")]
    NoSuchMember,
    /// The account administers nothing here.
    #[error("the account is not an administrator of the group")]
    NotAdministrator,
    /// Removing one's own account: leave instead.
    #[error("a member leaves by `leave`, not by removing itself")]
    RemoveSelf,
    /// The judge's rules forbid it.
    #[error("the group's rules forbid it: {0}")]
    Forbidden(String),
    /// The text, name or group is too large.
    #[error("{what} is too large: at most {max}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The cap.
        max: usize,
    },
    /// The organisation's directory could not be read for a day: whom to trust is not known any more.
    #[error("the organisation's directory could not be read for a day: nothing is sent until it can be read again")]
    DirectoryStale,
    /// The notice of escrow waits to be read and acknowledged.
    #[error("this group is archived: read its notice and acknowledge it first")]
    NoticeDue,
    /// The archive is a day behind, and the policy says that nothing is sent then.
    #[error(
        "this group must be archived and has not been for a day: nothing is sent until the escrow node has caught up. Tell \
         who runs it; leaving is possible at any time"
    )]
    ArchiveBehind {
        /// When this device read the oldest entry that is not archived.
        since: Timestamp,
    },
    /// The escrow member states another history.
    #[error(
        "the escrow member has archived another history of this group than this device has read: nothing is sent until both are \
         the same. Tell who runs it; found the group anew if it stays so; leaving is possible at any time"
    )]
    ArchiveDiffers {
        /// When this device noticed.
        since: Timestamp,
    },
    /// What the escrow node gave is no proof.
    #[error(
        "what the escrow node gave proves nothing: {0}; ask again, and tell who answers for the archive if it stays so"
    )]
    Receipt(ReceiptError),
    /// The policy of the group has no such notice.
    #[error("the group's policy has no such notice: show the policy again")]
    NoSuchNotice,
    /// The group is not an escrowed one.
    #[error("the group is not archived: it has no escrow policy")]
    NotEscrowed,
    /// An escrowed group without a policy.
    #[error("an escrowed group is founded under a signed escrow policy: name one")]
    PolicyMissing,
    /// The bytes are not a signed policy.
    #[error("{0}")]
    Policy(PolicyError),
    /// The policy is announced for later.
    #[error("the policy takes effect later: no client brings it into a group before that")]
    NotEffective {
        /// When it may be brought into a group.
        from: Timestamp,
    },
    /// The organisation's directory does not list the policy. (directory.policy.4)
    #[error(
        "the organisation's directory does not list version {version} of the escrow policy {id}, or the archive key that it \
         names: whoever runs the registrar publishes it (chancery-relay policy publish FILE), so that everybody in the \
         organisation can see it; then try again"
    )]
    PolicyNotListed {
        /// Name of the policy.
        id: String,
        /// Its version.
        version: u64,
    },
    /// The organisation's directory lists a later version that is in force. (directory.policy.5)
    #[error(
        "version {version} of the escrow policy {id} is not in force any more: found the group under version {latest}, which \
         whoever writes the organisation's policies has"
    )]
    PolicySuperseded {
        /// Name of the policy.
        id: String,
        /// Its version.
        version: u64,
        /// The latest one that is in force.
        latest: u64,
    },
    /// A partner's directory could not be read for a day.
    #[error(
        "the directory of {domain} could not be read for a day: nothing is sent to this group until it can be read again, or \
         the people of {domain} are removed"
    )]
    PartnerDirectoryStale {
        /// Whose.
        domain: Domain,
    },
    /// A pin contradicts what was shown.
    #[error(
        "{domain} is pinned with the root {root}, and this is {shown_domain} with the root {shown_root}: somebody else may \
         answer there. Ask the partner over another channel; if it has a new root indeed, remove the pin first"
    )]
    PartnerChanged {
        /// The pinned domain.
        domain: Domain,
        /// The pinned root.
        root: RootHash,
        /// The domain that was shown.
        shown_domain: Domain,
        /// The root that was shown.
        shown_root: RootHash,
    },
    /// No such pin.
    #[error("no organisation is pinned with this root")]
    NoSuchPartner,
    /// The own organisation cannot be a partner.
    #[error("this is the own organisation: pin the partner's file")]
    OwnOrganisation,
    /// The name is empty.
    #[error("the name is empty")]
    NameEmpty,
    /// The relay refused.
    #[error("{0}")]
    Refused(Refusal),
    /// MLS failed in a way that is our fault.
    #[error("internal fault: {0}")]
    Internal(String),
}
