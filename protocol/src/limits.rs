//! Size and count caps, checked before anything is parsed or stored. `spec/wire.md` lists them.
//!
//! This module does not enforce anything: each check stands where the bytes come in.

/// Longest frame on any stream, header excluded, in bytes.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest MLS message that carries an application message, in bytes.
pub const APPLICATION_BYTES_MAX: usize = 160 * 1024;
/// Longest MLS message that carries a commit, in bytes.
pub const COMMIT_BYTES_MAX: usize = 1024 * 1024;
/// Longest notice, in bytes.
pub const NOTICE_BYTES_MAX: usize = 512;
/// Longest Welcome, in bytes.
pub const WELCOME_BYTES_MAX: usize = 40 * 1024;
/// Most Welcomes in one commit bundle.
pub const WELCOMES_MAX: usize = 64;
/// Longest KeyPackage, in bytes.
pub const KEY_PACKAGE_BYTES_MAX: usize = 16 * 1024;
/// Most KeyPackages in one publication, and most that are kept per device.
pub const KEY_PACKAGES_MAX: usize = 100;
/// Longest certificate chain, all certificates together, in bytes.
pub const CHAIN_BYTES_MAX: usize = 8 * 1024;
/// Most certificates in a chain: device, issuing, root.
pub const CHAIN_CERTIFICATES_MAX: usize = 3;
/// Longest handle of a tenant account, in bytes of UTF-8.
pub const HANDLE_BYTES_MAX: usize = 128;
/// Longest text of one message, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Longest envelope before padding, in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 96 * 1024;
/// Smallest padded envelope, in bytes; each further bucket is twice as large.
pub const ENVELOPE_BUCKET_MIN: usize = 256;
/// Longest group name, in bytes of UTF-8.
pub const GROUP_NAME_BYTES_MAX: usize = 256;
/// Longest picture of a group, in bytes. Each signature covers the GroupContext, so that it costs on every message.
pub const GROUP_PICTURE_BYTES_MAX: usize = 16 * 1024;
/// Longest group state extension, in bytes.
pub const GROUP_STATE_BYTES_MAX: usize = 64 * 1024;
/// Most trusted roots, guests or administrators in a group state, each.
pub const GROUP_STATE_LIST_MAX: usize = 1_000;
/// Longest escrow policy extension, in bytes.
pub const POLICY_BYTES_MAX: usize = 24 * 1024;
/// Longest name in an escrow policy: of the policy, of a retention class, of a language; in bytes.
pub const POLICY_NAME_BYTES_MAX: usize = 64;
/// Longest purpose in an escrow policy, in bytes of UTF-8.
pub const POLICY_PURPOSE_BYTES_MAX: usize = 1024;
/// Longest URL in an escrow policy, in bytes.
pub const POLICY_URL_BYTES_MAX: usize = 512;
/// Most languages of a notice of escrow.
pub const POLICY_NOTICES_MAX: usize = 16;
/// Longest notice of escrow in one language, in bytes of UTF-8.
pub const POLICY_NOTICE_BYTES_MAX: usize = 1024;
/// Most seats of an escrow policy.
pub const POLICY_SEATS_MAX: u8 = 64;
/// Largest number of members, leaves included, that a client accepts in a group.
pub const GROUP_MEMBERS_MAX: usize = 10_000;
/// Entries in one `Entries` frame.
pub const ENTRIES_PER_FRAME_MAX: usize = 256;
/// Bytes of entry bodies after which an `Entries` frame is closed.
pub const ENTRIES_BYTES_TARGET: usize = 256 * 1024;
/// Bytes that may wait for one connection before deliveries to it pause (catch-up by cursor resumes them).
pub const CONNECTION_BYTES_MAX: usize = 1024 * 1024;
/// Requests of one connection that may wait for the store.
pub const CONNECTION_REQUESTS_MAX: usize = 1024;
/// Groups that one connection may have open.
pub const CONNECTION_GROUPS_MAX: usize = 4096;
/// Connections that one account may hold.
pub const ACCOUNT_CONNECTIONS_MAX: usize = 64;
/// Tokens of a group that wait for confirmation.
pub const TOKENS_UNCONFIRMED_MAX: usize = 64;
/// How many of these may be of accounts of another kind than the founder's.
pub const TOKENS_UNCONFIRMED_OTHERS_MAX: usize = 32;
/// Access tokens with a deadline that a relay keeps per group; older ones cannot read any more.
pub const TOKENS_PER_GROUP_MAX: usize = 1024;
/// Welcomes that may wait for one device.
pub const MAILBOX_MAX: usize = 4096;
/// Welcomes handed out in one go.
pub const MAIL_PER_READ_MAX: usize = 16;
/// KeyPackages that one account may take from one account in a day.
pub const KEY_PACKAGE_TAKES_PER_TARGET_DAY_MAX: u32 = 1_000;
/// Longest label of a device, in bytes of UTF-8.
pub const DEVICE_LABEL_BYTES_MAX: usize = 64;
/// Minutes that the ticket of a link code can be redeemed.
pub const LINK_MINUTES: u64 = 10;
/// Longest sealed deposit of a link code, in bytes.
pub const DEPOSIT_BYTES_MAX: usize = 256;
/// Orders in one frame of a registrar to its relay.
pub const ORDERS_PER_FRAME_MAX: usize = 10_000;
/// Entries of a directory in one frame of a registrar to its relay.
pub const DIRECTORY_ENTRIES_PER_FRAME_MAX: usize = 2_048;
/// Addresses in a ticket.
pub const TICKET_ADDRESSES_MAX: usize = 8;
/// Longest ticket string, in bytes.
pub const TICKET_BYTES_MAX: usize = 2048;
/// Longest file in which an organisation says where it is, in bytes.
pub const ORGANISATION_BYTES_MAX: usize = 8 * 1024;
/// Longest domain of an organisation, in bytes.
pub const DOMAIN_BYTES_MAX: usize = 253;
/// Organisations that a client pins as partners.
pub const PARTNERS_MAX: usize = 100;
/// Messages of one group that a client keeps in flight.
pub const IN_FLIGHT_MAX: usize = 64;
/// Past epochs of a group of which a client keeps access token and notice key.
pub const EPOCHS_KEPT_MAX: usize = 64;
/// Newest heads of a group with which a client compares the heads that others name.
pub const HEADS_KEPT_MAX: usize = 256;
/// Entries of an escrowed group that a client remembers until they are stated as archived.
pub const ENTRIES_UNARCHIVED_MAX: usize = 65_536;
/// Envelopes of one group that a client keeps until they are stated as archived, in bytes.
pub const ENVELOPES_UNARCHIVED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Questions to escrow nodes that a client has open at a time.
pub const ARCHIVE_QUESTIONS_MAX: usize = 8;
/// Envelopes of one group that may wait in the outbox.
pub const OUTBOX_MAX: usize = 100_000;
/// Generations that a sender's ratchet may jump forward.
pub const FORWARD_DISTANCE_MAX: u32 = 20_000;

/// Days that a relay keeps entries by default.
pub const RETENTION_DAYS: u64 = 30;
/// Days that append ids outlive their entries.
pub const APPEND_ID_DAYS: u64 = 7;
/// Days that a relay keeps rows which tie a device to a moment.
pub const TRACE_DAYS: u64 = 7;

/// Longest words of a fault in the archive's log, in bytes of UTF-8.
pub const FAULT_BYTES_MAX: usize = 256;
/// Longest capture statement with its signature, in bytes.
pub const STATEMENT_BYTES_MAX: usize = 1024;
/// Longest receipt, in bytes.
pub const RECEIPT_BYTES_MAX: usize = 32 * 1024;
/// Longest day report, in bytes.
pub const REPORT_BYTES_MAX: usize = 128 * 1024;
/// Most segments, or gaps, in a day report.
pub const REPORT_LIST_MAX: usize = 1_024;
/// Longest message or certificate of a ceremony, in bytes.
pub const CEREMONY_BYTES_MAX: usize = 64 * 1024;
/// Longest name of a seat, in bytes of UTF-8.
pub const SEAT_NAME_BYTES_MAX: usize = 128;
/// Longest opening request or answer with its signature, in bytes.
pub const OPENING_BYTES_MAX: usize = 512 * 1024;
/// Longest text in an opening request or answer, in bytes of UTF-8.
pub const OPENING_TEXT_BYTES_MAX: usize = 2_048;
/// Most segments in an opening request.
pub const OPENING_SEGMENTS_MAX: usize = 4_096;
/// Most people in an opening request.
pub const OPENING_PEOPLE_MAX: usize = 1_000;
/// Longest dossier or catalogue, in bytes.
pub const DOSSIER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest item of what a case workstation is given, in bytes: the lines of a capture are the longest ones.
pub const MATERIAL_ITEM_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Checkpoints of earlier dossiers, and earlier requests, that a dossier has.
pub const DOSSIER_EARLIER_MAX: usize = 1_000;
/// Days after enough seats have approved until the people whom an opening concerns are to be told.
pub const SUBJECT_NOTICE_DAYS: u64 = 30;
/// Longest manifest of an export, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Most faults of an export that are named.
pub const EXPORT_FAULTS_MAX: usize = 1_000;
/// Most seats that hold a share of an archive key.
pub const SEATS_MAX: u8 = 64;
/// Longest name of a retention class, in bytes of UTF-8.
pub const RETENTION_NAME_BYTES_MAX: usize = 64;
/// Longest record of the archive before padding, in bytes.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024 - 4;
/// Smallest padded record, in bytes; each further bucket is twice as large.
pub const RECORD_BUCKET_MIN: usize = 256;
/// Most members in one record of them.
pub const RECORD_MEMBERS_MAX: usize = 1_000;
/// Most records of a segment.
pub const SEGMENT_RECORDS_MAX: u64 = 1 << 32;

/// Most entries of a Merkle log: the tiles of C2SP tlog-tiles then have five levels.
pub const LOG_SIZE_MAX: u64 = (1 << 40) - 1;
/// Longest entry of a Merkle log, in bytes.
pub const LOG_ENTRY_BYTES_MAX: usize = 1024;
/// Most entries of a directory that a client reads in one look.
pub const DIRECTORY_ENTRIES_PER_LOOK_MAX: u64 = 4_000_000;
/// Heads of a directory with which a client compares older ones.
pub const DIRECTORY_HEADS_KEPT_MAX: usize = 256;
/// Pairs of contradicting checkpoints of a directory that a client keeps as evidence.
pub const DIRECTORY_SPLITS_KEPT_MAX: u8 = 16;
/// Longest checkpoint, all its signatures included, in bytes.
pub const CHECKPOINT_BYTES_MAX: usize = 16 * 1024;
/// Most signature lines of a checkpoint.
pub const CHECKPOINT_SIGNATURES_MAX: usize = 16;
/// Longest origin of a log or name of a key that signs checkpoints, in bytes of UTF-8.
pub const LOG_NAME_BYTES_MAX: usize = 255;

/// Longest body of an answer of an escrow node, in bytes: 256 entries of the archive's log, and some.
pub const CAPTURE_ANSWER_BYTES_MAX: usize = 320 * 1024;
/// Longest body of a question to it, in bytes.
pub const CAPTURE_QUESTION_BYTES_MAX: usize = 1024;

/// Longest blob, in bytes.
pub const BLOB_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Bytes of each part of a blob but the last.
pub const BLOB_PART_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of blobs that a relay takes of one account in a day (UTC).
pub const BLOB_BYTES_PER_DAY_MAX: u64 = 1024 * 1024 * 1024;
/// The longest `encrypted_group_info` that stands in each Welcome; a longer one is stored once, as a blob.
pub const GROUP_INFO_INLINE_BYTES_MAX: usize = 32 * 1024;
/// The longest `encrypted_group_info`, in bytes.
pub const GROUP_INFO_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest file that a message hands over, in bytes: it is in memory when it is encrypted, and when it is archived.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest name of a file, in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Longest media type of a file, in bytes.
pub const MEDIA_TYPE_BYTES_MAX: usize = 127;
/// How much of a file is in one record of the archive: with what stands before it, it fits the padding to half a megabyte.
pub const ATTACHMENT_PART_BYTES: usize = 520_000;
/// Files of one group that an escrow node has heard of and not read yet.
pub const ATTACHMENTS_WAITING_MAX: usize = 1_000;
