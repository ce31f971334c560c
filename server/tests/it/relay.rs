//! What the relay answers, and that connection and group survive it.

use std::{sync::Arc, time::Duration};

use chancery_protocol::{
    error::Refusal,
    identity::{Authority, DeviceName, Role, certificate::At, verify_chain},
    ids::{GroupId, RequestId, RootHash, Seq},
    wire::{
        Blob, Frame, FrameHeader,
        relay::{AckMail, EntryKind, Ping, PublishKeyPackages, TakeKeyPackages, WelcomeCopy, package_hash},
    },
};
use chancery_quic::{CloseCode, Lost, ReadError};
use chancery_server::{Admin, Clock};

use crate::client::{
    Device, GROUP, PATIENCE, admit, application, commit, deployment, enrol, handle, issuing, key, personal, start,
    token,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_appends_another_gets_pushed_and_after_a_restart_it_is_there() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let mut ana = Device::of(&config, &server, "ana", 1).await;
    let mut li = Device::of(&config, &server, "李雷", 2).await;
    assert_eq!(ana.append(commit(0, b"first", &token(1), vec![])).await.unwrap().head.seq, Seq(1));
    ana.open(GROUP, token(1), None).await.unwrap();
    let opened = li.open(GROUP, token(1), Some(0)).await.unwrap();
    assert_eq!((opened.head.seq, opened.may_append), (Seq(1), true));
    let mut last = None;
    for n in 0..50_u8 {
        last = Some(ana.append(application(1, &[n])).await.unwrap());
    }
    let mut delivery = None;
    let entries = li.entries(&mut delivery, 50).await;
    assert_eq!(entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), (2..=51).collect::<Vec<_>>());

    let address = server.local_addr();
    server.shutdown().await;
    assert_eq!(li.next().await.frame, Ok(Frame::Refused(Refusal::ShuttingDown)));
    let server = start(&config).await;
    assert_eq!(server.local_addr(), address, "a chosen port is kept, so that tickets stay good");
    let admin = &mut Admin::open(&config).unwrap();
    let again = enrol(&admin.ticket(&handle("ana")).unwrap(), &key(1)).await.unwrap();
    let mut ana = Device::connect(address, server.pin(), Some((&again, &key(1)))).await.unwrap();
    let opened = ana.open(GROUP, token(1), Some(40)).await.unwrap();
    assert_eq!(Some(opened.head), last.map(|appended| appended.head));
    assert_eq!(ana.entries(&mut None, 12).await.len(), 12);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_has_its_refusal_and_connection_and_group_survive() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let mut ana = Device::of(&config, &server, "ana", 1).await;
    assert_eq!(ana.open(GROUP, token(1), None).await, Err(Refusal::UnknownGroup));
    assert_eq!(ana.append(application(1, b"a")).await, Err(Refusal::UnknownGroup));
    ana.append(commit(0, b"first", &token(1), vec![])).await.unwrap();
    assert_eq!(ana.append(application(1, b"a")).await, Err(Refusal::NotOpen));
    assert_eq!(ana.open(GROUP, token(9), None).await, Err(Refusal::TokenRefused));
    ana.open(GROUP, token(1), None).await.unwrap();
    ana.append(commit(1, b"second", &token(2), vec![])).await.unwrap();
    assert_eq!(ana.append(application(1, b"a")).await, Err(Refusal::Stale { newest_commit: Seq(2) }));
    let conflict = ana.append(commit(1, b"other", &token(3), vec![])).await;
    assert_eq!(conflict, Err(Refusal::Conflict { newest_commit: Seq(2) }));
    let again = ana.append(commit(2, b"third", &token(1), vec![])).await;
    assert_eq!(again, Err(Refusal::TokenRefused), "an epoch with the token of another");
    let mut elsewhere = application(2, b"a");
    elsewhere.group = GroupId([1; 32]);
    assert_eq!(ana.append(elsewhere).await, Err(Refusal::HeaderMismatch));
    let mut another_kind = application(2, b"a");
    another_kind.kind = EntryKind::Commit;
    assert_eq!(ana.append(another_kind).await, Err(Refusal::HeaderMismatch));
    let large = ana.append(application(2, &[0; 200 * 1024])).await;
    assert!(matches!(large, Err(Refusal::TooLarge { .. })), "{large:?}");

    // A frame of no known type is answered under its number.
    let unknown = FrameHeader { body_len: 3, frame_type: 0x7777, correlation: 99 };
    ana.writer.write(&[Arc::from([unknown.to_bytes().as_slice(), b"???"].concat())]).await.unwrap();
    let taken = ana.next().await;
    assert_eq!((taken.correlation, taken.frame), (99, Ok(Frame::Refused(Refusal::Malformed))));

    ana.open(GROUP, token(2), None).await.unwrap();
    ana.append(application(2, b"still here")).await.unwrap();
    server.shutdown().await;
}

// proves wire.frame.3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_cannot_be_read_on_is_replaced_and_what_was_open_stays_open() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let mut ana = Device::of(&config, &server, "ana", 1).await;
    ana.append(commit(0, b"first", &token(1), vec![])).await.unwrap();
    ana.open(GROUP, token(1), None).await.unwrap();

    let oversized = FrameHeader { body_len: 5 * 1024 * 1024, frame_type: 3, correlation: 50 };
    ana.writer.write(&[Arc::from(oversized.to_bytes())]).await.unwrap();
    assert!(matches!(ana.next().await.frame, Ok(Frame::Refused(Refusal::TooLarge { .. }))));
    (ana.writer, ana.reader) = ana.connection.open_control().await.unwrap();
    ana.append(application(1, b"after oversized")).await.unwrap();

    let mut truncated = Frame::Append(application(1, b"truncated")).to_bytes(51);
    truncated.pop();
    ana.writer.write(&[Arc::from(truncated)]).await.unwrap();
    ana.writer.finish(PATIENCE).await;
    assert_eq!(ana.next().await.frame, Ok(Frame::Refused(Refusal::Malformed)));
    (ana.writer, ana.reader) = ana.connection.open_control().await.unwrap();
    let appended = ana.append(application(1, b"after truncated")).await.unwrap();
    assert_eq!(appended.head.seq, Seq(3), "nothing of the truncated frame was appended");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_is_told_why() {
    let (folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let refused = async |identity| Device::connect(server.local_addr(), server.pin(), identity).await.err();
    assert_eq!(refused(None).await, Some(Refusal::CertificateMissing));

    let (stranger, theirs) = personal(5);
    assert_eq!(refused(Some((&theirs, &stranger))).await, Some(Refusal::CertificateForeign));
    let ours = issuing(folder.path());
    let now = Clock::default().now();
    let long_ago = chancery_protocol::time::Timestamp(now.0 - 200 * 86_400_000);
    let six = key(6);
    let name = DeviceName::tenant(ours.root(), handle("ana"), key(6).device(), Role::Human);
    let expired = ours.certify_name(&name, key(6).public(), long_ago, Duration::from_secs(60)).unwrap();
    assert_eq!(refused(Some((&expired, &six))).await, Some(Refusal::CertificateExpired));
    let name = DeviceName::tenant(RootHash([9; 32]), handle("ana"), key(6).device(), Role::Human);
    let lying = ours.certify_name(&name, key(6).public(), now, Duration::from_secs(60)).unwrap();
    assert_eq!(refused(Some((&lying, &six))).await, Some(Refusal::CertificateInvalid));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invited_personal_account_is_let_in_at_once() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let ticket = Admin::open(&config).unwrap().personal_invitation().unwrap();
    let (key, chain) = personal(5);
    assert!(matches!(admit(&ticket, &key, &chain).await, Frame::Admitted(_)));
    let device = Device::connect(server.local_addr(), server.pin(), Some((&chain, &key))).await;
    assert!(device.is_ok(), "{:?}", device.err());
    let identity = verify_chain(&chain, At::Moment(Clock::default().now())).unwrap();
    assert_eq!(identity.authority(), Authority::Personal);
    Admin::open(&config).unwrap().disable_personal(identity.account()).unwrap();
    assert_eq!(device.unwrap().next().await.frame, Ok(Frame::Refused(Refusal::AccountDisabled)));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_account_is_cut_off_within_a_second_and_stays_out() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let ticket = Admin::open(&config).unwrap().add_account(&handle("ana")).unwrap();
    let chain = enrol(&ticket, &key(1)).await.unwrap();
    let connect = async || Device::connect(server.local_addr(), server.pin(), Some((&chain, &key(1)))).await;
    let mut ana = connect().await.unwrap();
    let mut li = Device::of(&config, &server, "li", 2).await;
    // From another process, as far as the server can tell.
    Admin::open(&config).unwrap().disable(&handle("ana")).unwrap();
    let cut = tokio::time::timeout(Duration::from_millis(1_500), ana.next()).await.expect("cut off in time");
    assert_eq!(cut.frame, Ok(Frame::Refused(Refusal::AccountDisabled)));
    assert_eq!(ana.connection.closed().await, Lost::ClosedByPeer(CloseCode::Refused as u64));
    assert_eq!(connect().await.err(), Some(Refusal::AccountDisabled));
    assert_eq!(enrol(&ticket, &key(1)).await, Err(Refusal::AccountDisabled));
    assert!(matches!(li.ask(Frame::Ping(Ping)).await, Frame::Pong(_)), "others are not touched");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_reaches_the_mailbox_of_a_connected_device_and_waits_for_it() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let mut ana = Device::of(&config, &server, "ana", 1).await;
    let mut li = Device::of(&config, &server, "li", 2).await;
    let publish = PublishKeyPackages { packages: vec![Blob(b"package".to_vec())], last_resort: None };
    assert!(matches!(li.ask(Frame::PublishKeyPackages(publish)).await, Frame::Published(p) if p.available == 1));
    let account = handle("li").account(server.tenant());
    let take = TakeKeyPackages { request: RequestId([1; 16]), account };
    let Frame::KeyPackages(taken) = ana.ask(Frame::TakeKeyPackages(take)).await else { panic!() };
    assert_eq!((taken.packages[0].device, &*taken.packages[0].body), (key(2).device(), &b"package"[..]));

    ana.append(commit(0, b"first", &token(1), vec![])).await.unwrap();
    ana.open(GROUP, token(1), None).await.unwrap();
    let welcome =
        WelcomeCopy { device: key(2).device(), package: package_hash(b"package"), body: Blob(b"welcome".to_vec()) };
    ana.append(commit(1, b"add", &token(2), vec![welcome])).await.unwrap();
    let Frame::Mail(mail) = li.delivered(&mut None).await else { panic!() };
    assert_eq!(&*mail.body, b"welcome");

    let ticket = Admin::open(&config).unwrap().ticket(&handle("li")).unwrap();
    let chain = enrol(&ticket, &key(2)).await.unwrap();
    let mut again = Device::connect(server.local_addr(), server.pin(), Some((&chain, &key(2)))).await.unwrap();
    assert_eq!(again.delivered(&mut None).await, Frame::Mail(mail.clone()), "it comes until it is acknowledged");
    assert!(matches!(again.ask(Frame::AckMail(AckMail { ids: vec![mail.id] })).await, Frame::MailAcked(_)));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_said_and_reading_goes_on() {
    let (_folder, config) = deployment(|config| config.relay.max_page_count = Some(300));
    let server = start(&config).await;
    let mut ana = Device::of(&config, &server, "ana", 1).await;
    ana.append(commit(0, b"first", &token(1), vec![])).await.unwrap();
    ana.open(GROUP, token(1), None).await.unwrap();
    let mut placed = 1;
    let refusal = loop {
        match ana.append(application(1, &[placed as u8; 100_000])).await {
            Ok(appended) => placed = appended.head.seq.0,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, Refusal::StoreFull);
    let opened = ana.open(GROUP, token(1), Some(2)).await.unwrap();
    assert_eq!(opened.head.seq.0, placed, "nothing of the refused entry is there");
    assert_eq!(ana.entries(&mut None, placed as usize - 1).await.len(), placed as usize - 1);
    assert_eq!(ana.append(application(1, &[99; 100_000])).await, Err(Refusal::StoreFull));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_far_behind_and_slow_gets_everything_once_and_in_order() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let mut ana = Device::of(&config, &server, "ana", 1).await;
    let mut li = Device::of(&config, &server, "li", 2).await;
    ana.append(commit(0, b"first", &token(1), vec![])).await.unwrap();
    ana.open(GROUP, token(1), None).await.unwrap();
    li.open(GROUP, token(1), Some(2)).await.unwrap();
    // More than the windows and the machine's limit together, before anything is read.
    let count = 150_u64;
    for n in 0..count {
        let mut content = vec![0; 100_000];
        content[..8].copy_from_slice(&n.to_be_bytes());
        ana.append(application(1, &content)).await.unwrap();
    }
    let mut delivery = None;
    let entries = li.entries(&mut delivery, count as usize).await;
    let places: Vec<u64> = entries.iter().map(|entry| entry.seq.0).collect();
    assert_eq!(places, (2..2 + count).collect::<Vec<_>>());
    let more = tokio::time::timeout(Duration::from_millis(200), delivery.as_mut().unwrap().next()).await;
    assert!(more.is_err(), "and nothing else");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_page_counts_and_serves_nothing_else() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (_folder, config) = deployment(|config| config.metrics = Some("127.0.0.1:0".parse().unwrap()));
    let server = start(&config).await;
    let mut ana = Device::of(&config, &server, "ana", 1).await;
    ana.append(commit(0, b"first", &token(1), vec![])).await.unwrap();
    ana.open(GROUP, token(7), None).await.unwrap_err();
    let get = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(server.metrics_addr().unwrap()).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let page = get("/metrics").await;
    for name in ["chancery_appends_total", "chancery_refusals_total{code=\"3\"}", "chancery_commit_seconds_bucket"] {
        assert!(page.contains(name), "{name} in {page}");
    }
    assert!(get("/").await.starts_with("HTTP/1.1 404"));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_dropped_leaves_its_peers() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let mut ana = Device::of(&config, &server, "ana", 1).await;
    drop(server);
    match tokio::time::timeout(PATIENCE, ana.reader.next()).await.unwrap() {
        Err(ReadError::Lost(_)) | Ok(Some(_) | None) => {}
        other => panic!("{other:?}"),
    }
    ana.connection.closed().await;
}

// proves relay.packages.3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_invited_whom_the_relay_would_not_let_in() {
    let (_folder, config) = deployment(|_| {});
    let server = start(&config).await;
    let mut ana = Device::of(&config, &server, "ana", 1).await;
    let mut first = Device::of(&config, &server, "li", 2).await;
    let chain = enrol(&Admin::open(&config).unwrap().ticket(&handle("li")).unwrap(), &key(3)).await.unwrap();
    let mut second = Device::connect(server.local_addr(), server.pin(), Some((&chain, &key(3)))).await.unwrap();
    for (device, package) in [(&mut first, &b"one"[..]), (&mut second, b"two")] {
        let publish = PublishKeyPackages { packages: Vec::new(), last_resort: Some(Blob(package.to_vec())) };
        device.ask(Frame::PublishKeyPackages(publish)).await;
    }
    let account = handle("li").account(server.tenant());
    let take = |request| Frame::TakeKeyPackages(TakeKeyPackages { request: RequestId([request; 16]), account });
    let Frame::KeyPackages(both) = ana.ask(take(1)).await else { panic!() };
    assert_eq!(both.packages.len(), 2);
    Admin::open(&config).unwrap().revoke(key(2).device()).unwrap();
    assert_eq!(first.next().await.frame, Ok(Frame::Refused(Refusal::DeviceRevoked)));
    let Frame::KeyPackages(left) = ana.ask(take(2)).await else { panic!() };
    assert_eq!(left.packages.iter().map(|package| package.device).collect::<Vec<_>>(), [key(3).device()]);
    Admin::open(&config).unwrap().disable(&handle("li")).unwrap();
    assert_eq!(second.next().await.frame, Ok(Frame::Refused(Refusal::AccountDisabled)));
    assert_eq!(ana.ask(take(3)).await, Frame::Refused(Refusal::UnknownAccount));
    server.shutdown().await;
}
