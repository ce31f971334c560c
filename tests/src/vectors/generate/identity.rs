//! Names, certificates, signatures and tickets, made from fixed seeds.

use std::time::Duration;

use chancery_protocol::{
    identity::{
        CertificateAuthority, Chain, Contact, DeviceKey, DeviceName, Invitee, Organisation, PersonalRoot, Purpose,
        Role, TenantRoot, Ticket, TicketKind,
        link::{self, AccountRoot},
    },
    ids::{AccountId, DeviceId, RootHash, SpkiPin},
    limits::HANDLE_BYTES_MAX,
    secret::Secret32,
    time::Timestamp,
    wire::{Blob, registrar::Place, vector::push_vector},
};
use curve25519_dalek::{EdwardsPoint, Scalar, constants::EIGHT_TORSION, traits::IsIdentity as _};
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use super::{
    super::{
        forge::{Forged, RawKey, device_certificate, dns, uri},
        json::hex,
    },
    Set,
};

/// 2027-01-15T08:00:00Z.
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn seed(byte: u8) -> Secret32 {
    Secret32::new([byte; 32])
}

fn key(byte: u8) -> DeviceKey {
    DeviceKey::from_seed(seed(byte)).unwrap()
}

fn tenant(byte: u8) -> CertificateAuthority {
    TenantRoot::create(seed(byte), NOW).unwrap().issuing(seed(byte + 1), NOW).unwrap()
}

pub(super) fn add(set: &mut Set) {
    names(set);
    chains(set);
    bad_chains(set);
    forged_chains(set);
    signatures(set);
    tickets(set);
    contacts(set);
    invitees(set);
    organisations(set);
    deposits(set);
}

fn names(set: &mut Set) {
    let root = RootHash([0x22; 32]);
    let mut handle = |name: &str, handle: &str, expect: &str| {
        let input = json!({"root": hex(root.0), "handle": handle});
        let title = "the account of a handle";
        set.add(
            &format!("identity/handle-{name}"),
            "handle",
            title,
            &["identity.account.1", "identity.handle.1"],
            input,
            expect,
        );
    };
    handle("latin", "ana", "ok");
    handle("chinese", "李雷", "ok");
    handle("emoji", "🦊", "ok");
    handle("longest", &"x".repeat(HANDLE_BYTES_MAX), "ok");
    for (name, text) in [
        ("empty", ""),
        ("space", "two words"),
        ("slash", "a/b"),
        ("at", "a@b"),
        ("colon", "a:b"),
        ("control", "a\u{7}"),
    ] {
        handle(&format!("bad-{name}"), text, "handle");
    }
    handle("bad-long", &"x".repeat(HANDLE_BYTES_MAX + 1), "handle");

    let input = json!({"public_key": hex(key(3).public())});
    set.add("identity/device-id", "device_id", "the id of a device key", &["identity.device.1"], input, "ok");

    let device = DeviceId([0x33; 32]);
    let human = |handle: &str| DeviceName::tenant(root, handle.parse().unwrap(), device, Role::Human).to_uri();
    let mut name = |path: &str, title: &str, uri: &str, expect: &str| {
        let input = json!({"uri": uri});
        set.add(&format!("identity/name-{path}"), "device_name", title, &["identity.name.1"], input, expect);
    };
    name("tenant", "a person's device", &human("ana"), "ok");
    name("encoded", "a handle with bytes that are encoded", &human("李雷"), "ok");
    name("service", "a program's device", &human("ana").replace("/human", "/service"), "ok");
    name("escrow", "an escrow node", &human("ana").replace("/human", "/escrow"), "ok");
    let personal = DeviceName::personal(root, device).to_uri();
    name("personal", "a device of a personal account", &personal, "ok");
    name("bad-personal-service", "a program in a personal account", &personal.replace("human", "service"), "name");
    name("bad-role", "a role that does not exist", &human("ana").replace("human", "root"), "name");
    name("bad-spelling", "a letter that is encoded without need", &human("ana").replace("/ana/", "/%61na/"), "name");
    name("bad-lower-hex", "an encoding in lower case", &human("é").replace("%C3%A9", "%c3%a9"), "name");
    name("bad-upper-id", "an id in upper case", &personal.replace(&"22".repeat(32), &"AB".repeat(32)), "name");
    name("bad-scheme", "another scheme", &human("ana").replace("chancery:", "chancery2:"), "name");
    name("bad-extra", "one part too many", &format!("{}/x", human("ana")), "name");
    name("bad-utf8", "a handle that is not UTF-8", &human("ana").replace("/ana/", "/%FF/"), "name");
    name("bad-empty-handle", "no handle", &human("ana").replace("/ana/", "//"), "name");
}

fn chain_input(chain: &Chain, at: Value) -> Value {
    json!({"chain": chain.0.iter().map(|der| hex(&**der)).collect::<Vec<_>>(), "at": at})
}

fn moment(at: Timestamp) -> Value {
    json!(at.0)
}

fn add_chain(set: &mut Set, name: &str, title: &str, chain: &Chain, at: Value, expect: &str) {
    let proves = match expect {
        "authority" => "identity.verify.2",
        _ if name.contains("log") => "identity.log.1",
        _ => "identity.verify.1",
    };
    let path = format!("identity/chain-{name}");
    set.add(&path, "chain", title, &[proves], chain_input(chain, at), expect);
}

fn chains(set: &mut Set) {
    let issuing = tenant(1);
    let ana = issuing.certify(&"ana".parse().unwrap(), key(3).public(), Role::Human, NOW).unwrap();
    add_chain(set, "tenant", "a device of an organisation", &ana, moment(NOW), "ok");
    let leila = issuing.certify(&"李雷".parse().unwrap(), key(3).public(), Role::Service, NOW).unwrap();
    add_chain(set, "tenant-service", "a program, with a handle that is not Latin", &leila, moment(NOW), "ok");
    let with_log = TenantRoot::create(seed(1), NOW).unwrap().issuing_with_log(seed(2), key(7).public(), NOW).unwrap();
    let logged = with_log.certify(&"ana".parse().unwrap(), key(3).public(), Role::Human, NOW).unwrap();
    add_chain(set, "tenant-log", "a device of an organisation with a directory", &logged, moment(NOW), "ok");
    let personal = PersonalRoot::create(seed(9), NOW).unwrap().certify(key(8).public(), NOW).unwrap();
    add_chain(set, "personal", "a device of a personal account", &personal, moment(NOW), "ok");
    let after = NOW.plus(91 * DAY);
    add_chain(set, "not-before", "an expired device at its first moment", &ana, json!("not_before"), "ok");
    add_chain(set, "bad-expired", "a day after the last", &ana, moment(after), "validity");
    add_chain(set, "bad-early", "two hours before it was made", &ana, moment(Timestamp(NOW.0 - 7_200_000)), "validity");
}

fn bad_chains(set: &mut Set) {
    let (issuing, other) = (tenant(1), tenant(11));
    let device = key(3);
    let ana = issuing.certify(&"ana".parse().unwrap(), device.public(), Role::Human, NOW).unwrap();
    let part = |indexes: &[usize]| Chain(indexes.iter().map(|index| ana.0[*index].clone()).collect());
    let now = || moment(NOW);
    add_chain(set, "bad-empty", "no certificate", &Chain(Vec::new()), now(), "size");
    add_chain(set, "bad-alone", "a device certificate alone", &part(&[0]), now(), "size");
    add_chain(set, "bad-four", "four certificates", &part(&[0, 1, 1, 2]), now(), "size");
    add_chain(set, "bad-order", "root and issuing certificate exchanged", &part(&[0, 2, 1]), now(), "authority");
    let mut long = part(&[0, 1, 2]);
    long.0.insert(1, Blob(vec![0; 8 * 1024]));
    long.0.truncate(3);
    add_chain(set, "bad-long", "more than 8 KiB", &long, now(), "size");
    let mut broken = part(&[0, 1, 2]);
    broken.0[0] = Blob(vec![0x30, 0x00]);
    add_chain(set, "bad-der", "a device certificate that does not parse", &broken, now(), "encoding");
    let mut flipped = part(&[0, 1, 2]);
    if let Some(last) = flipped.0[0].0.last_mut() {
        *last ^= 1;
    }
    add_chain(set, "bad-signature", "one bit of the signature is wrong", &flipped, now(), "path");
    let swapped = Chain([&ana.0[..1], other.chain()].concat());
    add_chain(set, "bad-issuer", "certificates of another organisation above", &swapped, now(), "path");

    let foreign = DeviceName::tenant(other.root(), "ana".parse().unwrap(), device.device(), Role::Human);
    let foreign = issuing.certify_name(&foreign, device.public(), NOW, DAY).unwrap();
    add_chain(set, "bad-authority", "a name in another organisation", &foreign, now(), "authority");
    let personal = DeviceName::personal(issuing.root(), device.device());
    let personal = issuing.certify_name(&personal, device.public(), NOW, DAY).unwrap();
    add_chain(
        set,
        "bad-personal-issued",
        "a personal name under an issuing certificate",
        &personal,
        now(),
        "authority",
    );
    let wrong = DeviceName::tenant(issuing.root(), "ana".parse().unwrap(), DeviceId([0; 32]), Role::Human);
    let wrong = issuing.certify_name(&wrong, device.public(), NOW, DAY).unwrap();
    add_chain(set, "bad-key", "a name with the id of another key", &wrong, now(), "key");
    // The neutral point, one of order 8, and one of order 4 in an encoding that is not canonical.
    let (mut neutral, mut other_neutral) = ([0; 32], [0xff; 32]);
    (neutral[0], other_neutral[0], other_neutral[31]) = (1, 0xed, 0x7f);
    let of_order_8 = array_of("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
    for (path, weak) in [("neutral", neutral), ("order-8", of_order_8), ("not-canonical", other_neutral)] {
        let chain = issuing.certify(&"ana".parse().unwrap(), &weak, Role::Human, NOW).unwrap();
        let title = "a key by which anybody can make signatures";
        add_chain(set, &format!("bad-key-{path}"), title, &chain, now(), "key");
    }
}

fn forged_chains(set: &mut Set) {
    let issuing = tenant(1);
    let device = key(3);
    let name = DeviceName::tenant(issuing.root(), "ana".parse().unwrap(), device.device(), Role::Human).to_uri();
    let raw = RawKey(*device.public());
    let client = || vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut add = |path: &str, title: &str, names, usages, is_authority, expect: &str| {
        let forged = Forged { names, usages, is_authority, key: &raw };
        let der = device_certificate(&seed(2), forged);
        let chain = Chain([&[Blob(der)], issuing.chain()].concat());
        add_chain(set, path, title, &chain, moment(NOW), expect);
    };
    add("forged-good", "the same parts, all in order", vec![uri(&name)], client(), false, "ok");
    add("bad-usage-none", "no extended key usage", vec![uri(&name)], Vec::new(), false, "path");
    add(
        "bad-usage-server",
        "a server's certificate",
        vec![uri(&name)],
        vec![ExtendedKeyUsagePurpose::ServerAuth],
        false,
        "path",
    );
    add("bad-name-none", "no name", Vec::new(), client(), false, "name");
    add("bad-name-dns", "a DNS name", vec![dns("ana.example")], client(), false, "name");
    add("bad-name-two", "two names", vec![uri(&name), dns("ana.example")], client(), false, "name");
    add("bad-name-uri", "a URI that names no device", vec![uri("https://example.org/ana")], client(), false, "name");
    add("bad-device-authority", "a device that is an authority", vec![uri(&name)], client(), true, "path");
}

fn array_of(hexadecimal: &str) -> [u8; 32] {
    data_encoding::HEXLOWER.decode(hexadecimal.as_bytes()).unwrap().try_into().unwrap()
}

/// The same signature with `S + L` for `S`: both are little-endian, and the sum stays below 2^253.
fn with_order_added(signature: &[u8]) -> Vec<u8> {
    let order = array_of("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let (point, scalar) = signature.split_at(32);
    let mut carry = 0;
    let sum = scalar.iter().zip(order).map(|(a, b)| {
        let digits = u16::from(*a) + u16::from(b) + carry;
        carry = digits >> 8;
        digits.to_le_bytes()[0]
    });
    point.iter().copied().chain(sum).collect()
}

/// A key and a signature by it over `content`, to one of which a point of order 8 is added: with the cofactor the equation
/// of RFC 8032, section 5.1.7, holds, and without it does not.
fn with_torsion(content: &[u8], to_key: bool) -> ([u8; 32], Vec<u8>) {
    let (secret, nonce) = (Scalar::from(3_u64), Scalar::from(5_u64));
    let (mut public, mut point) = (EdwardsPoint::mul_base(&secret), EdwardsPoint::mul_base(&nonce));
    *(if to_key { &mut public } else { &mut point }) += EIGHT_TORSION[1];
    let (key, commitment) = (public.compress(), point.compress());
    let hash = Sha512::new().chain_update(commitment.0).chain_update(key.0).chain_update(content).finalize();
    let challenge = Scalar::from_bytes_mod_order_wide(&hash.into());
    let scalar = nonce + challenge * secret;
    let difference = EdwardsPoint::mul_base(&scalar) - challenge * public - point;
    assert!(!difference.is_identity() && difference.mul_by_cofactor().is_identity());
    (key.0, [commitment.0, scalar.to_bytes()].concat())
}

fn signatures(set: &mut Set) {
    let device = key(3);
    let message = Ticket::proof_message(&seed(0x44), SpkiPin([0x55; 32]));
    let mut add_of = |key: &[u8; 32], name: &str, title: &str, label: &str, signature: Vec<u8>, expect: &str| {
        let input = json!({
            "public_key": hex(key), "label": label, "message": hex(&message), "signature": hex(signature),
        });
        let proves = ["identity.signature.1", "identity.signature.2", "identity.ticket.3"];
        set.add(&format!("identity/signature-{name}"), "signature", title, &proves, input, expect);
    };
    let mut content = Vec::new();
    push_vector(&mut content, b"Chancery 1.0 Enrol");
    push_vector(&mut content, &message);
    for (to_key, name, title) in [
        (false, "bad-r-torsion", "a point of order 8 is added to R"),
        (true, "bad-key-torsion", "a point of order 8 is added to the key"),
    ] {
        let (key, signature) = with_torsion(&content, to_key);
        add_of(&key, name, title, "Chancery 1.0 Enrol", signature, "signature");
    }
    let mut add = |name: &str, title: &str, label: &str, signature: Vec<u8>, expect: &str| {
        add_of(device.public(), name, title, label, signature, expect);
    };
    let enrol = device.sign(Purpose::Enrol, &message);
    let (mut flipped, enrolled) = (enrol.clone(), enrol.clone());
    flipped[10] ^= 1;
    add("enrol", "a request for a certificate", "Chancery 1.0 Enrol", enrol.clone(), "ok");
    add("admit", "a request for admission", "Chancery 1.0 Admit", device.sign(Purpose::Admit, &message), "ok");
    add("collect", "a request for a deposit", "Chancery 1.0 Collect", device.sign(Purpose::Collect, &message), "ok");
    add("bad-label", "a signature for another purpose", "Chancery 1.0 Admit", enrol, "signature");
    add("bad-bit", "one bit is wrong", "Chancery 1.0 Enrol", flipped, "signature");
    add("bad-s", "the group's order is added to S", "Chancery 1.0 Enrol", with_order_added(&enrolled), "signature");
    add("bad-short", "no signature", "Chancery 1.0 Enrol", Vec::new(), "signature");
}

fn tickets(set: &mut Set) {
    let ticket = |kind, addresses: &[&str]| Ticket {
        kind,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        server: SpkiPin([0x55; 32]),
        tenant: RootHash([0x22; 32]),
        secret: seed(0x44),
    };
    let account = ticket(TicketKind::Account, &["192.0.2.7:4433"]).to_string();
    let both = ticket(TicketKind::Personal, &["[2001:db8::7]:443", "192.0.2.7:4433"]).to_string();
    let link = ticket(TicketKind::Link, &["192.0.2.7:4433"]).to_string();
    let many = ticket(TicketKind::Account, &["192.0.2.7:1"; 9]).to_string();
    let none = ticket(TicketKind::Account, &[]).to_string();
    let mut add = |name: &str, title: &str, ticket: &str, expect: &str| {
        let proves = ["identity.ticket.1", "identity.ticket.2"];
        set.add(&format!("ticket/{name}"), "ticket", title, &proves, json!({"ticket": ticket}), expect);
    };
    add("account", "a ticket for a device certificate", &account, "ok");
    add("personal", "a ticket for a personal account, two addresses", &both, "ok");
    add("link", "a link code of a personal account", &link, "ok");
    add("bad-prefix", "another version", &account.replace("ticket-1", "ticket-2"), "prefix");
    add("bad-no-prefix", "no ticket at all", "hello", "prefix");
    add("bad-check", "a letter is wrong", &account.replacen("AQ", "Ag", 1).replacen("VVVV", "VVVW", 1), "damaged");
    add("bad-cut", "the end is missing", &account[..account.len() - 4], "damaged");
    add("bad-padding", "base64 with padding", &format!("{account}="), "damaged");
    add("bad-nine-addresses", "nine addresses", &many, "damaged");
    add("bad-no-address", "no address", &none, "damaged");
}

fn contacts(set: &mut Set) {
    let contact = Contact(AccountId([0x99; 32])).to_string();
    let mut add = |name: &str, title: &str, contact: &str, expect: &str| {
        let input = json!({"contact": contact});
        set.add(&format!("identity/contact-{name}"), "contact", title, &["identity.contact.1"], input, expect);
    };
    add("personal", "a personal account", &contact, "ok");
    add("bad-prefix", "no contact", "personal:99", "prefix");
    add("bad-digit", "a digit of the account is wrong", &contact.replacen('9', "8", 1), "damaged");
    add("bad-cut", "the check is missing", contact.rsplit_once('/').unwrap().0, "damaged");
    add("bad-surplus", "something behind the check", &format!("{contact}0"), "damaged");
}

fn invitees(set: &mut Set) {
    let of = |handle: &str| Invitee { root: RootHash([0x22; 32]), handle: handle.parse().unwrap() }.to_string();
    let li = of("李雷");
    let mut add = |name: &str, title: &str, contact: &str, expect: &str| {
        let input = json!({"contact": contact});
        set.add(&format!("identity/contact-{name}"), "invitee", title, &["identity.contact.2"], input, expect);
    };
    add("account", "an account of an organisation", &of("ana"), "ok");
    add("account-encoded", "an account whose name is not Latin", &li, "ok");
    add("bad-account-prefix", "a personal account", &Contact(AccountId([0x99; 32])).to_string(), "prefix");
    add("bad-account-spelling", "the name is not encoded", &li.replace("%E6%9D%8E%E9%9B%B7", "李雷"), "damaged");
    add("bad-account-root", "a digit of the root is wrong", &li.replacen('2', "3", 1), "damaged");
    add("bad-account-name", "another name with the same check", &of("ana").replace("/ana/", "/bo/"), "damaged");
    add("bad-account-surplus", "something behind the check", &format!("{li}/0"), "damaged");
}

fn organisations(set: &mut Set) {
    let place = |addresses: &[&str], pin| Place {
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        pin: SpkiPin([pin; 32]),
    };
    let relay = place(&["192.0.2.7:4433", "[2001:db8::7]:4433"], 0x55);
    let example = Organisation {
        domain: "b.example".parse().unwrap(),
        root: RootHash([0x22; 32]),
        relay: relay.clone(),
        registrar: place(&["192.0.2.8:4434"], 0x66),
    };
    let file = example.to_json();
    let none = Organisation { relay: place(&[], 0x55), ..example.clone() }.to_json();
    let many = Organisation { relay: place(&["192.0.2.7:1"; 9], 0x55), ..example.clone() }.to_json();
    let mut add = |name: &str, title: &str, proves: &str, file: &str, expect: &str| {
        let input = json!({"file": file});
        set.add(&format!("organisation/{name}"), "organisation", title, &[proves], input, expect);
    };
    let (write, read) = ("identity.organisation.1", "identity.organisation.2");
    add("apart", "relay and registrar are two servers", write, &file, "ok");
    let one = Organisation { registrar: relay, ..example }.to_json();
    add("one-server", "one server is both", write, &one, "ok");
    add("surplus-key", "a key that is not known", read, &file.replacen('{', "{\"motto\": [1],", 1), "ok");
    add("bad-version", "another version", read, &file.replace("\"chancery\": 1", "\"chancery\": 2"), "version");
    add("bad-json", "not JSON", read, &file[1..], "form");
    add("bad-doubled", "a key twice", read, &file.replacen('{', "{\"domain\": \"c.example\",", 1), "form");
    add("bad-missing", "no root", read, &file.replace("\"root\"", "\"stem\""), "form");
    add("bad-root", "a root of 31 bytes", read, &file.replacen("2222", "22", 1), "form");
    add("bad-upper", "a pin in upper case", read, &file.replace("\"55", "\"AA"), "form");
    add("bad-name", "an address that is a name", read, &file.replace("192.0.2.7", "relay.example"), "form");
    add("bad-domain", "a domain in upper case", read, &file.replace("b.example", "B.example"), "domain");
    add("bad-no-address", "a server without an address", read, &none, "addresses");
    add("bad-nine-addresses", "nine addresses", read, &many, "addresses");
    add("bad-long", "more than 8 KiB", read, &format!("{file}{}", " ".repeat(8 * 1024)), "size");
}

fn deposits(set: &mut Set) {
    let root = AccountRoot { seed: seed(0x77), made_at: NOW };
    let sealed = link::seal(&seed(0x44), &root).unwrap();
    let mut flipped = sealed.0.clone();
    flipped[3] ^= 1;
    let mut add = |name: &str, title: &str, secret: u8, sealed: &[u8], expect: &str| {
        let input = json!({"secret": hex(seed(secret).expose()), "sealed": hex(sealed)});
        set.add(&format!("identity/deposit-{name}"), "deposit", title, &["identity.deposit.1"], input, expect);
    };
    add("root", "the root of a personal account", 0x44, &sealed.0, "ok");
    add("bad-secret", "another code", 0x45, &sealed.0, "sealed");
    add("bad-bit", "one bit is wrong", 0x44, &flipped, "sealed");
    add("bad-short", "nothing", 0x44, &[], "sealed");
}
