//! A relay's store in memory, by the same pure decisions as every other.

use std::collections::BTreeMap;

use chancery_protocol::{
    error::Refusal,
    ids::{AccountId, AppendId, DeviceId, GroupId, MailId, PackageHash, RequestId, TokenHash},
    relay::{
        AppendContext, Decision, GroupRow, RelayStore, StoreFault, StoreOp, StoreReply, TokenRow, decide,
        log::open,
        mailbox::{DevicePackages, hand_out},
        store::{AppendOp, AppendedRow},
    },
    time::Timestamp,
    wire::{
        Blob,
        relay::{Appended, Entry, TakenPackage, append_id, package_hash},
    },
};

#[derive(Default)]
pub struct MemoryStore {
    pub groups: BTreeMap<GroupId, GroupRow>,
    tokens: BTreeMap<(GroupId, TokenHash), TokenRow>,
    ids: BTreeMap<AppendId, Appended>,
    entries: BTreeMap<GroupId, Vec<Entry>>,
    packages: BTreeMap<(AccountId, DeviceId), (Vec<Blob>, Option<Blob>)>,
    requests: BTreeMap<(AccountId, RequestId), Vec<TakenPackage>>,
    taken: BTreeMap<PackageHash, AccountId>,
    mail: BTreeMap<(DeviceId, MailId), Blob>,
    last_mail: u64,
}

impl MemoryStore {
    fn live(&self, group: GroupId) -> Vec<TokenRow> {
        let rows = self.tokens.iter().filter(|((of, _), row)| *of == group && row.ends_at.is_none());
        rows.map(|(_, row)| *row).collect()
    }

    fn append(&mut self, op: &AppendOp, now: Timestamp) -> Result<AppendedRow, Refusal> {
        let id = append_id(op.group, op.kind, &op.body);
        let taken: Vec<PackageHash> =
            self.taken.iter().filter(|(_, by)| **by == op.author).map(|(hash, _)| *hash).collect();
        let live = self.live(op.group);
        let next = op.bundle.as_ref().map(|bundle| (op.group, bundle.next_token));
        let context = AppendContext {
            live: &live,
            next_known: next.is_some_and(|next| self.tokens.contains_key(&next)),
            group: self.groups.get(&op.group),
            known: self.ids.get(&id).copied(),
            token: op.token.and_then(|token| self.tokens.get(&(op.group, token))),
            taken: &taken,
            behind_placed: op.behind.is_none_or(|behind| self.ids.contains_key(&behind)),
            mailbox_full: false,
            now,
        };
        match decide(&context, op) {
            Decision::Known(appended) => Ok(AppendedRow { appended, placed: false }),
            Decision::Refuse(refusal) => Err(refusal),
            Decision::Place(placement) => {
                self.groups.insert(op.group, placement.group);
                for row in placement.tokens {
                    self.tokens.insert((op.group, row.hash), row);
                }
                for welcome in placement.welcomes {
                    self.last_mail += 1;
                    self.taken.remove(&welcome.package);
                    self.mail.insert((welcome.device, MailId(self.last_mail)), welcome.body);
                }
                self.ids.insert(id, placement.appended);
                self.entries.entry(op.group).or_default().push(Entry {
                    seq: placement.appended.head.seq,
                    kind: op.kind,
                    received_at: placement.appended.received_at,
                    body: op.body.clone(),
                });
                Ok(placement.appended.into())
            }
        }
    }

    fn one(&mut self, op: &StoreOp, now: Timestamp) -> StoreReply {
        match op {
            StoreOp::Open { group, token, by } => {
                let live = self.live(*group);
                let token = self.tokens.get(&(*group, *token));
                StoreReply::Opened(open(self.groups.get(group), token, &live, *by, now).map(|(opened, changed)| {
                    self.tokens.extend(changed.into_iter().map(|row| ((*group, row.hash), row)));
                    opened
                }))
            }
            StoreOp::Append(op) => StoreReply::Appended(self.append(op, now)),
            StoreOp::Read { group, from, to, entries_max, bytes_max } => {
                let entries = self.entries.get(group).into_iter().flatten();
                let wanted = entries.filter(|entry| entry.seq >= *from && entry.seq <= *to).take(*entries_max);
                let mut bytes = 0;
                let whole = wanted.take_while(|entry| {
                    let room = bytes < *bytes_max;
                    bytes += entry.body.len();
                    room
                });
                StoreReply::Entries(Ok(whole.cloned().collect()))
            }
            StoreOp::PublishKeyPackages { account, device, packages, last_resort } => {
                let held = self.packages.entry((*account, *device)).or_default();
                if last_resort.is_some() {
                    held.1.clone_from(last_resort);
                    held.0.clear();
                }
                held.0.extend(packages.iter().cloned());
                StoreReply::Published(u32::try_from(held.0.len()).unwrap())
            }
            StoreOp::TakeKeyPackages { requester, request, account } => {
                if let Some(packages) = self.requests.get(&(*requester, *request)) {
                    return StoreReply::Taken(Ok(packages.clone()));
                }
                let devices = self
                    .packages
                    .iter()
                    .filter(|((owner, _), _)| owner == account)
                    .map(|((_, device), (single, last))| DevicePackages {
                        device: *device,
                        oldest: single.first().cloned(),
                        last_resort: last.clone(),
                    })
                    .collect();
                let handed = hand_out(devices);
                if handed.is_empty() {
                    return StoreReply::Taken(Err(Refusal::UnknownAccount));
                }
                let mut packages = Vec::new();
                for (package, single_use) in handed {
                    if single_use {
                        self.packages.get_mut(&(*account, package.device)).unwrap().0.remove(0);
                    }
                    self.taken.insert(package_hash(&package.body), *requester);
                    packages.push(package);
                }
                self.requests.insert((*requester, *request), packages.clone());
                StoreReply::Taken(Ok(packages))
            }
            StoreOp::ReadMail { device, after, max } => {
                let mail = self.mail.iter().filter(|((to, id), _)| to == device && id > after).take(*max);
                StoreReply::Mail(mail.map(|((_, id), body)| (*id, body.clone())).collect())
            }
            StoreOp::AckMail { device, ids } => {
                for id in ids {
                    self.mail.remove(&(*device, *id));
                }
                StoreReply::Done
            }
            StoreOp::Expire { .. } => StoreReply::Done,
        }
    }
}

impl RelayStore for MemoryStore {
    fn apply(&mut self, ops: &[StoreOp], now: Timestamp) -> Result<Vec<StoreReply>, StoreFault> {
        Ok(ops.iter().map(|op| self.one(op, now)).collect())
    }
}
