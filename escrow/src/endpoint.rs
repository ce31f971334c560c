//! Where members ask how far their groups are archived: `chancery-capture/1`, one question on each connection.
//! `spec/wire.md#asking-an-escrow-node`.
//!
//! This module signs nothing: it hands out what the machine has stored. A statement or receipt is found under a name that
//! a group's members alone can compute; the log is for devices of the organisation.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chancery_client::{Client, Error, machine::Space};
use chancery_protocol::{
    capture::{
        log::{CHECKPOINT, entry_key, node_key},
        receipts::{Receipts, receipts_key},
        seal_entry::lines_key,
    },
    escrow::{Receipt, RecordLine},
    identity::{Authority, DeviceKey, certificate::At, verify_chain},
    ids::{MerkleHash, Seq, SpkiPin, StatementLookup},
    merkle::{MemoryLog, Resource, Tile, TileCache, inclusion_proof, leaf_hash, tile},
    time::Timestamp,
    wire::{
        Blob, Frame,
        capture::{LogTold, ReceiptTold, StatementTold},
        decode_exact,
    },
};
use chancery_quic::{BindError, CloseCode, ListenLimits, Listener, Peer, Protocol};
use tokio::sync::Semaphore;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the answer may take to arrive.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Questions that are answered at the same time.
const QUESTIONS_MAX: usize = 256;
const LIMITS: ListenLimits = ListenLimits { connections_max: 4_096, connections_per_address_max: 64, retry_above: 256 };

/// The endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Its address cannot be listened on.
    #[error("{0}: give another address with `--listen`, or stop what uses it")]
    Bind(#[from] BindError),
    /// The socket has no address.
    #[error("the endpoint's socket failed: {0}")]
    Io(#[from] std::io::Error),
}

/// An open endpoint. It ends when it is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    pin: SpkiPin,
    accepting: tokio::task::JoinHandle<()>,
    listener: Arc<Listener>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
        self.listener.abort(CloseCode::ShuttingDown);
    }
}

impl Endpoint {
    /// Listens. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn open(
        address: SocketAddr,
        key: &DeviceKey,
        client: Client,
        authority: Authority,
        now: Timestamp,
    ) -> Result<Self, EndpointError> {
        let listener = Arc::new(Listener::bind_for(&[Protocol::Capture], address, key, now, LIMITS)?);
        let (address, pin) = (listener.local_addr()?, listener.pin());
        let desk = Desk::new(client, authority);
        let accepting = tokio::spawn(accept(Arc::clone(&listener), desk));
        Ok(Self { address, pin, accepting, listener })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hash of its TLS key.
    #[must_use]
    pub fn pin(&self) -> SpkiPin {
        self.pin
    }
}

/// What answers need.
#[derive(Clone)]
pub(crate) struct Desk {
    client: Client,
    authority: Authority,
}

async fn accept(listener: Arc<Listener>, desk: Desk) {
    let places = Arc::new(Semaphore::new(QUESTIONS_MAX));
    while let Some(arrival) = listener.accept().await {
        let (desk, places) = (desk.clone(), Arc::clone(&places));
        tokio::spawn(async move {
            let Ok(peer) = arrival.handshake().await else { return };
            let Ok(_place) = places.try_acquire() else { return peer.connection.abort(CloseCode::Refused) };
            // Who is too slow asks again.
            let _ = tokio::time::timeout(PATIENCE, desk.serve(&peer)).await;
            peer.connection.abort(CloseCode::Done);
        });
    }
}

impl Desk {
    pub(crate) fn new(client: Client, authority: Authority) -> Self {
        Self { client, authority }
    }

    async fn serve(&self, peer: &Peer) {
        let Ok((mut writer, mut reader)) = peer.connection.accept_capture().await else { return };
        let Ok(Some(taken)) = reader.next().await else { return };
        let answered = match taken.frame {
            Ok(question) => self.answer(&question, self.is_own(peer)).await,
            Err(_) => return peer.connection.abort(CloseCode::Malformed),
        };
        match answered {
            Ok(Some(answer)) => {
                if writer.write(&[Arc::from(answer.to_bytes(taken.correlation))]).await.is_ok() {
                    writer.finish(ANSWER_PATIENCE).await;
                }
            }
            Ok(None) => peer.connection.abort(CloseCode::Malformed),
            Err(error) => tracing::warn!(code = error.code(), "a question about the archive could not be answered"),
        }
    }

    /// escrow.log.2: whether a peer is a device of the organisation.
    fn is_own(&self, peer: &Peer) -> bool {
        let now = crate::now();
        let identity = peer.chain.as_ref().and_then(|chain| verify_chain(chain, At::Moment(now)).ok());
        identity.is_some_and(|identity| identity.authority() == self.authority)
    }

    async fn answer(&self, question: &Frame, own: bool) -> Result<Option<Frame>, Error> {
        Ok(Some(match question {
            Frame::AskStatement(ask) => {
                let statement = self.value(Space::Statement, ask.lookup.as_bytes().to_vec()).await?.map(Blob);
                Frame::StatementTold(StatementTold { statement })
            }
            Frame::AskReceipt(ask) => Frame::ReceiptTold(ReceiptTold {
                receipt: self.receipt(ask.lookup, ask.seq).await?.map(|receipt| Blob(receipt.to_bytes())),
            }),
            Frame::AskLog(ask) if own => {
                Frame::LogTold(LogTold { bytes: self.resource(&ask.resource).await?.map(Blob) })
            }
            Frame::AskLog(_) => Frame::LogTold(LogTold { bytes: None }),
            _ => return Ok(None),
        }))
    }

    pub(crate) async fn value(&self, space: Space, key: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
        let rows = self.client.rows(space, key.clone(), 1).await?;
        Ok(rows.into_iter().find(|(found, _)| *found == key).map(|(_, value)| value))
    }

    /// The newest checkpoint, and its size.
    pub(crate) async fn checkpoint(&self) -> Result<Option<(Vec<u8>, u64)>, Error> {
        let Some(note) = self.value(Space::Archive, CHECKPOINT.to_vec()).await? else { return Ok(None) };
        let size = core::str::from_utf8(&note).ok().and_then(|text| text.lines().nth(1)?.parse().ok());
        Ok(size.map(|size| (note, size)))
    }

    async fn receipt(&self, lookup: StatementLookup, seq: Seq) -> Result<Option<Receipt>, Error> {
        let rows = self.client.rows(Space::Receipt, receipts_key(lookup, seq), 1).await?;
        let found = rows.first().and_then(|(key, value)| Receipts::found(lookup, key, value));
        let Some(receipts) = found else { return Ok(None) };
        let log_index = receipts.log_index;
        let Some((checkpoint, size)) = self.checkpoint().await?.filter(|(_, size)| log_index < *size) else {
            return Ok(None);
        };
        let Some(entry) = self.value(Space::ArchiveEntry, entry_key(log_index)).await? else { return Ok(None) };
        let Some(lines) = self.value(Space::Lines, lines_key(log_index)).await? else { return Ok(None) };
        let damaged = |_| Error::Damaged("the lines of a capture do not decode".to_owned());
        let lines: Vec<RecordLine> = decode_exact("", &lines).map_err(damaged)?;
        let Some(line) = receipts.line(&lines, seq) else { return Ok(None) };
        let mut tree = MemoryLog::default();
        for line in &lines {
            tree.append(line.leaf());
        }
        let place = lines.first().and_then(|first| line.index.checked_sub(first.index));
        let Some(line_proof) = place.and_then(|place| inclusion_proof(place, tree.size(), &mut tree)) else {
            return Ok(None);
        };
        let mut tiles = TileCache::new(size);
        for tile in tile::inclusion_tiles(log_index, size) {
            let Some(bytes) = self.tile(&tile).await? else { return Ok(None) };
            tiles.add(tile, &bytes);
        }
        let log_proof = inclusion_proof(log_index, size, &mut tiles);
        let (entry, checkpoint) = (Blob(entry), Blob(checkpoint));
        Ok(log_proof.map(|log_proof| Receipt { line, line_proof, entry, log_index, log_proof, checkpoint }))
    }

    async fn resource(&self, resource: &Resource) -> Result<Option<Vec<u8>>, Error> {
        let Some((note, size)) = self.checkpoint().await? else { return Ok(None) };
        let within = |tile: &Tile| {
            Tile::of(tile.level(), tile.index(), size).is_some_and(|widest| tile.width() <= widest.width())
        };
        match resource {
            Resource::Checkpoint => Ok(Some(note)),
            Resource::Tile(tile) if within(tile) => self.tile(tile).await,
            Resource::Entries(tile) if within(tile) && tile.level() == 0 => {
                let entries = self.entries(tile).await?;
                Ok(tile::encode_bundle(entries.iter().map(Vec::as_slice)))
            }
            _ => Ok(None),
        }
    }

    async fn entries(&self, tile: &Tile) -> Result<Vec<Vec<u8>>, Error> {
        let first = entry_key(tile.index() * u64::from(tile::FULL));
        let rows = self.client.rows(Space::ArchiveEntry, first, usize::from(tile.width())).await?;
        Ok(rows.into_iter().map(|(_, entry)| entry).collect())
    }

    /// escrow.log.3: the hashes of entries are computed, those of higher levels are kept.
    pub(crate) async fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, Error> {
        let hashes: Vec<MerkleHash> = if tile.level() == 0 {
            self.entries(tile).await?.iter().map(|entry| leaf_hash(entry)).collect()
        } else {
            let Some(first) = tile.nodes().next() else { return Ok(None) };
            let rows = self.client.rows(Space::Archive, node_key(first), usize::from(tile.width())).await?;
            rows.iter().filter_map(|(_, hash)| MerkleHash::from_slice(hash)).collect()
        };
        let whole = hashes.len() == usize::from(tile.width());
        Ok(whole.then(|| hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()))
    }
}
