//! With the crypto of tests, one seed gives one run, to the byte.

use chancery_protocol::{client::Command, mls::Class};
use sha2::Digest;

use crate::net::Net;

/// People come, talk, collide, fall ill and go; the hash of all that reached the relay.
fn play(seed: u64) -> [u8; 32] {
    let mut net = Net::new(seed);
    for name in ["ana", "bo", "李雷", "zoë"] {
        net.tenant(name);
    }
    let desk = net.create("ana", Class::Work, "desk 🦊");
    net.invite("ana", desk, "bo");
    net.invite("bo", desk, "李雷");
    net.send("李雷", desk, "早上好");
    let (ana, zoë) = (net.account("ana"), net.account("zoë"));
    net.command("bo", Command::Invite { group: desk, account: zoë });
    net.command("李雷", Command::Remove { group: desk, account: ana });
    net.settle();
    net.kill("bo");
    net.connect("bo");
    net.send("bo", desk, "back");
    net.settle();
    net.trace.clone().finalize().into()
}

#[test]
fn one_seed_gives_the_same_bytes_and_another_gives_others() {
    assert_eq!(play(1), play(1));
    assert_ne!(play(1), play(2));
}
