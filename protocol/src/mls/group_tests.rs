//! What the judge sees of real MLS commits, and what a group refuses or survives.

use super::*;
use crate::{
    identity::{CertificateAuthority, Role, TenantRoot, issue::DEVICE_VALIDITY, name::DeviceName},
    mls::{Class, key_package},
    secret::{Random, Secret32},
    time::Timestamp,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

struct Device {
    core: Core,
    key: DeviceKey,
    chain: Chain,
    packages: Storage,
}

fn issuing() -> CertificateAuthority {
    let root = TenantRoot::create(Secret32::new([1; 32]), NOW).unwrap();
    root.issuing(Secret32::new([2; 32]), NOW).unwrap()
}

fn device(of: &CertificateAuthority, handle: &str, seed: u8) -> Device {
    let key = DeviceKey::from_seed(Secret32::new([seed; 32])).unwrap();
    let chain = of.certify(&handle.parse().unwrap(), key.public(), Role::Human, NOW).unwrap();
    Device { core: Core::new(Random::new([seed; 32])), key, chain, packages: Storage::default() }
}

impl Device {
    fn package(&self, last_resort: bool) -> OfferedPackage {
        let bytes = key_package::make(&self.core, &self.packages, &self.key, &self.chain, last_resort).unwrap();
        OfferedPackage::parse(&self.core, &bytes, NOW).unwrap()
    }

    fn found(&self, root: crate::ids::RootHash) -> Group {
        let charter = Charter { class: Class::Work, tenant: Some(root), predecessor: None, nonce: [7; 32] };
        let state = GroupState { name: "desk".to_owned(), roots: vec![root], ..GroupState::default() };
        let mut group = Group::found(&self.core, &self.key, &self.chain, charter, &state, None).unwrap();
        group.commit(&self.core, &self.key, &Change::default()).unwrap();
        group.merge_pending(&self.core).unwrap();
        group
    }
}

/// Two devices in one group.
fn pair() -> (Device, Group, Device, Group) {
    let acme = issuing();
    let (ana, bo) = (device(&acme, "ana", 11), device(&acme, "bo", 12));
    let mut desk = ana.found(acme.root());
    let change = Change { adds: vec![bo.package(false)], ..Change::default() };
    let prepared = desk.commit(&ana.core, &ana.key, &change).unwrap();
    desk.merge_pending(&ana.core).unwrap();
    let joined = Group::join(&bo.core, &bo.packages, bo.key.device(), &prepared.welcomes[0].body).unwrap();
    (ana, desk, bo, joined)
}

// proves mls.token.1
#[test]
fn committer_receiver_and_joiner_derive_the_same_token() {
    let (ana, mut desk, bo, mut joined) = pair();
    assert_eq!(desk.token(&ana.core).unwrap(), joined.token(&bo.core).unwrap());
    assert_eq!(desk.epoch_authenticator(), joined.epoch_authenticator());
    let prepared = desk.commit(&ana.core, &ana.key, &Change::default()).unwrap();
    desk.merge_pending(&ana.core).unwrap();
    let Processed::Commit(change) = joined.process(&bo.core, &prepared.commit).unwrap() else { panic!("a commit") };
    joined.merge(&bo.core, *change).unwrap();
    assert_eq!(joined.token(&bo.core).unwrap().hash(), prepared.next_token);
    assert_eq!(desk.token(&ana.core).unwrap().hash(), prepared.next_token);
}

#[test]
fn a_group_loads_from_its_deltas_alone_with_its_pending_commit() {
    let (ana, mut desk, bo, mut joined) = pair();
    let prepared = desk.commit(&ana.core, &ana.key, &Change::default()).unwrap();
    let mut rows = Vec::new();
    desk.take_delta(&ana.core, &mut rows);
    let rows = rows.into_iter().filter_map(|row| Some((row.key[33..].to_vec(), row.value.clone()?)));
    let mut again = Group::load(desk.id(), ana.key.device(), rows).unwrap();
    assert!(again.has_pending());
    again.merge_pending(&ana.core).unwrap();
    let Processed::Commit(change) = joined.process(&bo.core, &prepared.commit).unwrap() else { panic!("a commit") };
    joined.merge(&bo.core, *change).unwrap();
    assert_eq!(again.epoch_authenticator(), joined.epoch_authenticator());
}

// proves mls.outcome.1
#[test]
fn a_damaged_entry_is_void_and_changes_nothing() {
    let (ana, mut desk, bo, mut joined) = pair();
    let body = desk.encrypt(&ana.core, &ana.key, b"hello").unwrap();
    let mut damaged = body.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(matches!(joined.process(&bo.core, &damaged), Err(ProcessError::Void(_))));
    let Processed::Application { plaintext, sender } = joined.process(&bo.core, &body).unwrap() else { panic!() };
    assert_eq!(plaintext, b"hello");
    assert_eq!(sender.identity.device(), ana.key.device());
    assert!(matches!(joined.process(&bo.core, b"garbage"), Err(ProcessError::Void(_))));
    // What names this device's leaf is no member's word: it is told apart.
    let own = joined.encrypt(&bo.core, &bo.key, b"mine").unwrap();
    assert_eq!(joined.process(&bo.core, &own).unwrap_err(), ProcessError::OwnLeaf);
}

// proves mls.outcome.2
#[test]
fn an_entry_of_a_later_epoch_is_ahead_and_one_of_an_earlier_void() {
    let (ana, mut desk, bo, mut joined) = pair();
    let old = desk.encrypt(&ana.core, &ana.key, b"old").unwrap();
    let prepared = desk.commit(&ana.core, &ana.key, &Change::default()).unwrap();
    desk.merge_pending(&ana.core).unwrap();
    let ahead = desk.encrypt(&ana.core, &ana.key, b"ahead").unwrap();
    assert_eq!(joined.process(&bo.core, &ahead).unwrap_err(), ProcessError::Ahead(desk.epoch()));
    let Processed::Commit(change) = joined.process(&bo.core, &prepared.commit).unwrap() else { panic!("a commit") };
    joined.merge(&bo.core, *change).unwrap();
    assert!(matches!(joined.process(&bo.core, &old), Err(ProcessError::Void(_))));
}

// proves mls.judge.7
// proves mls.packages.1
#[test]
fn a_key_package_of_an_expired_certificate_is_not_added() {
    let ana = device(&issuing(), "ana", 11);
    let bytes = key_package::make(&ana.core, &ana.packages, &ana.key, &ana.chain, false).unwrap();
    let later = NOW.plus(core::time::Duration::from_secs(100 * 86_400));
    assert!(OfferedPackage::parse(&ana.core, &bytes, later).is_err());
    assert!(OfferedPackage::parse(&ana.core, &bytes, NOW).is_ok());
    assert!(OfferedPackage::parse(&ana.core, &[0; 40], NOW).is_err());
}

// proves mls.judge.7
#[test]
fn a_leaf_that_another_root_certifies_by_name_is_refused_before_anybody_adds_it() {
    let (ana, mut desk, _bo, _joined) = pair();
    let partner = TenantRoot::create(Secret32::new([21; 32]), NOW).unwrap().hash();
    let eve = DeviceKey::from_seed(Secret32::new([31; 32])).unwrap();
    let name = DeviceName::tenant(partner, "eve".parse().unwrap(), eve.device(), Role::Human);
    // acme's issuing key, on a name of the partner.
    let chain = issuing().certify_name(&name, eve.public(), NOW, DEVICE_VALIDITY).unwrap();
    let forged = Device { core: Core::new(Random::new([31; 32])), key: eve, chain, packages: Storage::default() };
    let bytes = key_package::make(&forged.core, &forged.packages, &forged.key, &forged.chain, false).unwrap();
    let refused = OfferedPackage::parse(&ana.core, &bytes, NOW).unwrap_err();
    assert_eq!(refused, "the device's certificate does not verify");
    // A client that adds it all the same makes a commit that the judge refuses.
    let true_chain = device(&issuing(), "eve", 31);
    let mut offered = true_chain.package(false);
    offered.package = {
        use openmls::prelude::{MlsMessageBodyIn, MlsMessageIn, ProtocolVersion};
        use tls_codec::Deserialize as _;
        let message = MlsMessageIn::tls_deserialize_exact(&*bytes).unwrap();
        let MlsMessageBodyIn::KeyPackage(package) = message.extract() else { panic!("a key package") };
        package.validate(ana.core.crypto(), ProtocolVersion::Mls10).unwrap()
    };
    let refused = desk.commit(&ana.core, &ana.key, &Change { adds: vec![offered], ..Change::default() }).unwrap_err();
    assert!(matches!(refused, CommitError::Judged(Rule::LeafCredential)), "{refused:?}");
    assert_eq!(Rule::LeafCredential.to_string(), "mls.judge.7: a leaf's certificate chain does not verify");
}

// proves mls.judge.8
#[test]
fn a_leaf_whose_key_is_not_its_certificates_is_refused() {
    let acme = issuing();
    let (ana, bo) = (device(&acme, "ana", 11), device(&acme, "bo", 12));
    let stolen = key_package::make(&bo.core, &bo.packages, &bo.key, &ana.chain, false).unwrap();
    assert!(OfferedPackage::parse(&bo.core, &stolen, NOW).is_err());
}

// proves mls.judge.9
#[test]
fn a_commit_that_breaks_a_rule_is_not_made_and_leaves_nothing_pending() {
    let (ana, mut desk, _bo, _joined) = pair();
    let other = TenantRoot::create(Secret32::new([31; 32]), NOW).unwrap();
    let eve = device(&other.issuing(Secret32::new([32; 32]), NOW).unwrap(), "eve", 33);
    let change = Change { adds: vec![eve.package(false)], ..Change::default() };
    assert_eq!(desk.commit(&ana.core, &ana.key, &change).unwrap_err(), CommitError::Judged(Rule::LeafRoot));
    assert!(!desk.has_pending());
    assert!(desk.commit(&ana.core, &ana.key, &Change::default()).is_ok());
}

// proves mls.judge.13
#[test]
fn a_foreign_commit_that_breaks_a_rule_is_void_for_who_receives_it() {
    let (ana, mut desk, bo, mut joined) = pair();
    let mut state = desk.view().state.clone();
    state.roots.clear();
    // A modified client would send it; ours refuses to make it, so the judge is passed by on this side.
    desk.view.charter.class = Class::Personal;
    let extensions = context_extensions(&joined.view.charter.to_bytes(), None, state.to_bytes()).unwrap();
    let provider = ana.core.with(&desk.storage);
    let rand = openmls_traits::OpenMlsProvider::rand(&provider);
    let bundle = desk
        .mls
        .commit_builder()
        .propose_group_context_extensions(extensions)
        .unwrap()
        .load_psks(&desk.storage)
        .unwrap()
        .build(rand, ana.core.crypto(), &DeviceSigner(&ana.key), |_| true)
        .unwrap()
        .stage_commit(&provider)
        .unwrap();
    let body = bundle.commit().to_bytes().unwrap();
    let epoch = joined.epoch();
    let error = joined.process(&bo.core, &body).unwrap_err();
    assert_eq!(error, ProcessError::Void(Rule::State.to_string()));
    assert_eq!(joined.epoch(), epoch);
}

// proves mls.profile.5
#[test]
fn a_last_resort_package_serves_twice_and_a_single_use_one_once() {
    let acme = issuing();
    let (ana, bo) = (device(&acme, "ana", 11), device(&acme, "bo", 12));
    for (last_resort, again) in [(true, true), (false, false)] {
        let package = bo.package(last_resort);
        let mut desk = ana.found(acme.root());
        let change = Change { adds: vec![package], ..Change::default() };
        let prepared = desk.commit(&ana.core, &ana.key, &change).unwrap();
        let welcome = &prepared.welcomes[0].body;
        assert!(Group::join(&bo.core, &bo.packages, bo.key.device(), welcome).is_ok());
        assert_eq!(Group::join(&bo.core, &bo.packages, bo.key.device(), welcome).is_ok(), again);
    }
}

// proves mls.welcome.1
// proves mls.joining.1
#[test]
fn each_welcome_holds_the_secrets_of_one_device() {
    let acme = issuing();
    let (ana, bo, cy) = (device(&acme, "ana", 11), device(&acme, "bo", 12), device(&acme, "cy", 13));
    let mut desk = ana.found(acme.root());
    let change = Change { adds: vec![bo.package(false), cy.package(false)], ..Change::default() };
    let prepared = desk.commit(&ana.core, &ana.key, &change).unwrap();
    desk.merge_pending(&ana.core).unwrap();
    assert_eq!(prepared.welcomes.len(), 2);
    for (device, welcome) in [(&bo, 0), (&cy, 1)] {
        let copy = &prepared.welcomes[welcome];
        assert_eq!(copy.device, device.key.device());
        let joined = Group::join(&device.core, &device.packages, device.key.device(), &copy.body).unwrap();
        assert_eq!(joined.epoch_authenticator(), desk.epoch_authenticator());
    }
    let other = Group::join(&cy.core, &cy.packages, cy.key.device(), &prepared.welcomes[0].body);
    assert_eq!(other.unwrap_err(), JoinError::UnknownPackage);
}

// proves mls.profile.1, mls.profile.2, mls.profile.3
#[test]
fn a_key_package_has_the_profiles_suite_credential_and_capabilities() {
    use openmls::prelude::{CredentialType, ExtensionType, ProtocolVersion};
    let ana = device(&issuing(), "ana", 11);
    let package = ana.package(false).package;
    let leaf = package.leaf_node();
    assert_eq!(u16::from(package.ciphersuite()), 0x0001);
    assert_eq!(leaf.credential().credential_type(), CredentialType::X509);
    assert_eq!(crate::mls::profile::chain_of(leaf.credential()).unwrap(), ana.chain);
    assert_eq!(leaf.signature_key().as_slice(), ana.key.public());
    let capabilities = leaf.capabilities();
    assert_eq!(capabilities.versions(), [ProtocolVersion::Mls10]);
    let suites: Vec<u16> = capabilities.ciphersuites().iter().map(|suite| suite.value()).collect();
    assert_eq!(suites, [0x0001, 0x0003]);
    let extensions: Vec<u16> = capabilities.extensions().iter().map(|kind| u16::from(*kind)).collect();
    assert_eq!(extensions, [0xF0C0, 0xF0C1, 0xF0C2, u16::from(ExtensionType::LastResort)]);
    assert!(capabilities.proposals().is_empty());
    assert_eq!(capabilities.credentials(), [CredentialType::X509]);
}

/// A group of `ana` alone whose GroupContext has these extensions.
fn with_extensions(extensions: Vec<openmls::prelude::Extension>) -> Result<GroupView, Rule> {
    let acme = issuing();
    let ana = device(&acme, "ana", 11);
    let storage = Storage::default();
    let extensions = openmls::prelude::Extensions::from_vec(extensions).unwrap();
    let mls = MlsGroup::new_with_group_id(
        &ana.core.with(&storage),
        &DeviceSigner(&ana.key),
        &create_config(extensions),
        MlsGroupId::from_slice(&[1; 32]),
        credential(&ana.chain, &ana.key),
    )
    .unwrap();
    Group::read(&mls)
}

fn profile_extensions() -> Vec<openmls::prelude::Extension> {
    let root = issuing().root();
    let charter = Charter { class: Class::Work, tenant: Some(root), predecessor: None, nonce: [7; 32] };
    let state = GroupState { name: "desk".to_owned(), roots: vec![root], ..GroupState::default() };
    context_extensions(&charter.to_bytes(), None, state.to_bytes()).unwrap().iter().cloned().collect()
}

// proves mls.judge.3, mls.judge.4, mls.profile.4, mls.profile.6
#[test]
fn a_group_context_has_the_profiles_extensions_and_no_other() {
    use openmls::prelude::{CredentialType, Extension, RequiredCapabilitiesExtension};
    assert!(with_extensions(profile_extensions()).is_ok());
    let mut more = profile_extensions();
    more.push(Extension::ExternalSenders(Vec::new()));
    assert_eq!(with_extensions(more).unwrap_err(), Rule::UnknownExtension);
    for missing in 0..3 {
        let mut fewer = profile_extensions();
        fewer.remove(missing);
        let expected = [Rule::RequiredCapabilities, Rule::Charter, Rule::State][missing];
        assert_eq!(with_extensions(fewer).unwrap_err(), expected);
    }
    let mut weaker = profile_extensions();
    weaker[0] = Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&[], &[], &[CredentialType::X509]));
    assert!(with_extensions(weaker).is_err());
}

// proves mls.judge.11
#[test]
fn a_device_that_is_in_is_not_added_again() {
    let (ana, mut desk, bo, _joined) = pair();
    let change = Change { adds: vec![bo.package(false)], ..Change::default() };
    assert!(desk.commit(&ana.core, &ana.key, &change).is_err());
    // With its removal in the same commit it is healed.
    let change = Change { adds: vec![bo.package(false)], removes: vec![bo.key.device()], ..Change::default() };
    assert!(desk.commit(&ana.core, &ana.key, &change).is_ok());
}

// proves mls.judge.17
#[test]
fn a_group_has_at_most_ten_thousand_leaves() {
    let (_ana, desk, _bo, _joined) = pair();
    let one = desk.view.leaves.values().next().unwrap();
    let leaves = |count: u16| {
        let id = |number: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&number.to_be_bytes());
            DeviceId(id)
        };
        (0..count).map(|number| (id(number), Arc::clone(one))).collect::<BTreeMap<_, _>>()
    };
    let context = desk.mls.public_group().group_context();
    assert!(GroupView::of(context, leaves(10_000), None).is_ok());
    assert_eq!(GroupView::of(context, leaves(10_001), None).unwrap_err(), Rule::TooManyMembers);
}

// proves mls.judge.8
#[test]
fn a_path_that_claims_another_account_for_the_same_device_is_void() {
    let (ana, mut desk, bo, mut joined) = pair();
    let acme = issuing();
    let claim = |handle: &str, role| acme.certify(&handle.parse().unwrap(), ana.key.public(), role, NOW).unwrap();
    for (chain, renewed) in
        [(claim("eve", Role::Human), false), (claim("ana", Role::Service), false), (claim("ana", Role::Human), true)]
    {
        let path = openmls::prelude::LeafNodeParameters::builder()
            .with_credential_with_key(credential(&chain, &ana.key))
            .build();
        let provider = ana.core.with(&desk.storage);
        let rand = openmls_traits::OpenMlsProvider::rand(&provider);
        let bundle = desk
            .mls
            .commit_builder()
            .force_self_update(true)
            .leaf_node_parameters(path)
            .load_psks(&desk.storage)
            .unwrap()
            .build(rand, ana.core.crypto(), &DeviceSigner(&ana.key), |_| true)
            .unwrap()
            .stage_commit(&provider)
            .unwrap();
        let body = bundle.commit().to_bytes().unwrap();
        match joined.process(&bo.core, &body) {
            Ok(Processed::Commit(_)) => assert!(renewed),
            Err(error) => {
                assert!(!renewed, "{error}");
                assert_eq!(error, ProcessError::Void(Rule::LeafKey.to_string()));
            }
            Ok(_) => panic!("a commit"),
        }
        desk.clear_pending().unwrap();
    }
}

/// ana, bo and the escrow member `archive` in an escrowed group.
fn escrowed() -> (Device, Group, Device, Group, Device, Group) {
    use crate::mls::policy::tests::{key, sample, signed};
    let acme = issuing();
    let (ana, bo) = (device(&acme, "ana", 11), device(&acme, "bo", 12));
    let escrow = Device {
        chain: acme.certify(&"archive".parse().unwrap(), key(15).public(), Role::Escrow, NOW).unwrap(),
        ..device(&acme, "archive", 15)
    };
    let root = acme.root();
    let charter = Charter { class: Class::Escrowed, tenant: Some(root), predecessor: None, nonce: [7; 32] };
    let state = GroupState { name: "desk".to_owned(), roots: vec![root], ..GroupState::default() };
    let policy = signed(&key(1), 1, &sample(&key(1), "archive", key(15).public()));
    let mut desk = Group::found(&ana.core, &ana.key, &ana.chain, charter, &state, Some(&policy)).unwrap();
    // Nothing but the escrow member comes in first.
    for change in [Change::default(), Change { adds: vec![bo.package(true)], ..Change::default() }] {
        let error = desk.commit(&ana.core, &ana.key, &change).unwrap_err();
        assert_eq!(error, CommitError::Judged(Rule::EscrowMember));
    }
    let change = Change { adds: vec![escrow.package(false), bo.package(false)], ..Change::default() };
    let prepared = desk.commit(&ana.core, &ana.key, &change).unwrap();
    desk.merge_pending(&ana.core).unwrap();
    let join = |device: &Device| {
        let welcome = prepared.welcomes.iter().find(|copy| copy.device == device.key.device()).unwrap();
        Group::join(&device.core, &device.packages, device.key.device(), &welcome.body).unwrap()
    };
    let (at_escrow, at_bo) = (join(&escrow), join(&bo));
    (ana, desk, bo, at_bo, escrow, at_escrow)
}

// proves mls.judge.22
#[test]
fn what_the_escrow_member_says_is_void_and_what_it_renews_is_not() {
    let (ana, mut desk, _bo, _at_bo, escrow, mut at_escrow) = escrowed();
    let said = at_escrow.encrypt(&escrow.core, &escrow.key, b"psst").unwrap();
    let error = desk.process(&ana.core, &said).unwrap_err();
    assert_eq!(error, ProcessError::Void(Rule::EscrowSpeaks.to_string()));
    let heard = desk.encrypt(&ana.core, &ana.key, b"hello").unwrap();
    assert!(matches!(at_escrow.process(&escrow.core, &heard), Ok(Processed::Application { .. })));
    let renewal = at_escrow.commit(&escrow.core, &escrow.key, &Change::default()).unwrap();
    assert!(matches!(desk.process(&ana.core, &renewal.commit), Ok(Processed::Commit(_))));
}

// proves mls.judge.19, mls.judge.20, mls.judge.21
#[test]
fn commits_against_the_policy_are_not_made() {
    use crate::mls::policy::tests::{key, next, signed};
    let (ana, mut desk, bo, _at_bo, escrow, mut at_escrow) = escrowed();
    let device = escrow.key.device();
    let refused = |group: &mut Group, by: &Device, change: &Change| match group.commit(&by.core, &by.key, change) {
        Err(CommitError::Judged(rule)) => Some(rule),
        Err(error) => panic!("{error}"),
        Ok(_) => {
            group.clear_pending().unwrap();
            None
        }
    };
    let removal = Change { removes: vec![device], ..Change::default() };
    assert_eq!(refused(&mut desk, &ana, &removal), Some(Rule::EscrowMember));
    let healing = Change { adds: vec![escrow.package(true)], removes: vec![device], ..Change::default() };
    assert_eq!(refused(&mut desk, &ana, &healing), None);
    let others = Change { removes: vec![bo.key.device()], ..Change::default() };
    assert_eq!(refused(&mut at_escrow, &escrow, &others), Some(Rule::EscrowActs));
    let second = signed(&key(1), 1, &next(desk.view().policy.as_ref().unwrap()));
    let third = signed(&key(1), 1, &next(&second));
    let policy = |policy: &SignedPolicy| Change { policy: Some(policy.clone()), ..Change::default() };
    assert_eq!(refused(&mut desk, &ana, &policy(&third)), Some(Rule::PolicyChain));
    assert_eq!(refused(&mut at_escrow, &escrow, &policy(&second)), Some(Rule::EscrowActs));
    assert_eq!(refused(&mut desk, &ana, &policy(&second)), None);
}
