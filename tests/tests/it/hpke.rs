//! HPKE by others opens what ours seals, and the other way round.

use ::hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, aead::AesGcm256, kdf::HkdfSha256, kem::X25519HkdfSha256,
    single_shot_open, single_shot_seal_with_rng,
};
use chancery_protocol::{
    escrow::hpke::{HpkeKey, HpkePublicKey, seal},
    secret::{Random, Secret32},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

type TheirKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type TheirPublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type TheirEncapsulation = <X25519HkdfSha256 as Kem>::EncappedKey;

fn keys(entropy: [u8; 32]) -> (HpkeKey, TheirKey, TheirPublicKey) {
    let (secret, public) = X25519HkdfSha256::derive_keypair(&entropy);
    (HpkeKey::derive(&Secret32::new(entropy)), secret, public)
}

// proves opening.hpke.1
#[test]
fn ours_and_theirs_open_what_the_other_seals() {
    let mut random = Random::new([1; 32]);
    let mut theirs = ChaCha20Rng::from_seed([2; 32]);
    for len in [0, 1, 97, 5_000] {
        let (own, secret, public) = keys(random.bytes());
        assert_eq!(own.public(), HpkePublicKey(public.to_bytes().into()));
        let (mut plaintext, info, aad) = (vec![0; len], random.bytes::<40>(), random.bytes::<7>());
        random.fill(&mut plaintext);
        let sealed = seal(own.public(), &info, &aad, &plaintext, &mut random).unwrap();
        let encapsulated = TheirEncapsulation::from_bytes(&sealed[..32]).unwrap();
        let opened = single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &secret,
            &encapsulated,
            &info,
            &sealed[32..],
            &aad,
        );
        assert_eq!(opened.unwrap(), plaintext);
        let (encapsulated, ciphertext) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            &info,
            &plaintext,
            &aad,
            &mut theirs,
        )
        .unwrap();
        let sealed = [encapsulated.to_bytes().as_slice(), &ciphertext].concat();
        assert_eq!(own.open(&info, &aad, &sealed).unwrap().as_slice(), plaintext);
    }
}
