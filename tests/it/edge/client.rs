//! The client alone against the strict stand-in: every call, pages, and each kind of fault.

use crate::bed::cloudflare::{Cloudflare as StandIn, Grant, Mishap};
use gitopsd::edge::{Cloudflare, CloudflareError, Need};
use gitopsd::secrets::Plaintext;
use serde_json::json;
use std::time::Duration;

fn client(stand_in: &StandIn, token: &str) -> Cloudflare {
    Cloudflare::new(&stand_in.url(), Plaintext::new(token.into())).expect("a client")
}

/// As long as the real one wants it.
fn secret() -> Plaintext {
    Plaintext::new(vec![b'a'; 44])
}

#[tokio::test]
async fn every_call_is_one_that_the_strict_api_takes() {
    let stand_in = StandIn::start();
    let client = client(&stand_in, "good-token\n");
    client.verify().await.expect("a token");
    let zone = client.zone("muppit.au").await.expect("by name");
    assert_eq!(client.zone(&zone.id).await.expect("by id"), zone);
    let account = &zone.account.id;
    let made = client.create_tunnel(account, "home-1", &secret()).await.expect("made");
    let found = client.tunnels(account, "home-1").await.expect("listed");
    assert_eq!(found, std::slice::from_ref(&made));
    client.rename_tunnel(account, &made.id, "lab-1").await.expect("renamed");
    let before = client.connector_token(account, &made.id).await.expect("a token");
    let other = Plaintext::new(vec![b'b'; 44]);
    client.rotate_tunnel(account, &made.id, &other).await.expect("rotated");
    let after = client.connector_token(account, &made.id).await.expect("a token");
    assert_ne!(before.expose(), after.expose());
    client.may_edit_tunnels(account).await.expect("it may");
    client.may_edit_records(&zone).await.expect("it may");

    assert_eq!(client.configuration(account, &made.id).await.expect("empty").config, None);
    let config = json!({"ingress": [{"hostname": "a.muppit.au", "service": "http://x",
        "originRequest": {"httpHostHeader": "a.muppit.au"}}, {"service": "http_status:404"}]});
    client.configure(account, &made.id, &config).await.expect("written");
    let read = client.configuration(account, &made.id).await.expect("read");
    assert_eq!((read.version, read.config), (1, Some(config)));
    stand_in.connect(3);
    assert_eq!(client.connections(account, &made.id).await.expect("counted"), 3);
    let tunnel = client.tunnel(account, &made.id).await.expect("read").expect("there");
    assert_eq!((tunnel.name.as_str(), tunnel.connected()), ("lab-1", 3));
    let busy = client.delete_tunnel(account, &made.id).await.expect_err("connected");
    assert!(matches!(busy, CloudflareError::Busy { .. }) && busy.retry(), "{busy}");
    client.clean_connections(account, &made.id).await.expect("dropped");

    let body = json!({"type": "CNAME", "name": "a.muppit.au", "content": "t.cfargotunnel.com",
        "proxied": true, "ttl": 1, "comment": "ours"});
    let record = client.create_record(&zone.id, &body).await.expect("made");
    let twice = client.create_record(&zone.id, &body).await.expect_err("it is there");
    assert!(matches!(twice, CloudflareError::Refused { code: 81053, .. }), "{twice}");
    client.update_record(&zone.id, &record.id, &body).await.expect("the same again");
    let marked = client.records_marked(&zone.id, "ours").await.expect("listed");
    assert_eq!(marked, std::slice::from_ref(&record));
    assert_eq!(client.records_named(&zone.id, "a.muppit.au").await.expect("listed").len(), 1);
    for _ in 0..2 {
        client.delete_record(&zone.id, &record.id).await.expect("gone is gone");
        client.delete_tunnel(account, &made.id).await.expect("gone is gone");
    }
    assert!(client.tunnels(account, "lab-1").await.expect("listed").iter().all(|t| !t.lives()));
    let unknown = client.zone("nowhere.example").await.expect_err("no such zone");
    assert!(unknown.to_string().contains("sees no zone nowhere.example"), "{unknown}");
}

#[tokio::test]
async fn a_list_is_read_to_its_last_page() {
    let stand_in = StandIn::start();
    let client = client(&stand_in, "good-token");
    let zone = client.zone("muppit.au").await.expect("the zone").id;
    for number in 0..120 {
        stand_in.record("CNAME", &format!("h{number}.muppit.au"), "x", Some("ours"));
    }
    stand_in.record("CNAME", "other.muppit.au", "x", None);
    let before = stand_in.calls().len();
    assert_eq!(client.records_marked(&zone, "ours").await.expect("listed").len(), 120);
    assert_eq!(stand_in.calls().len() - before, 3);
}

#[tokio::test]
async fn each_fault_is_told_by_what_it_is_and_whether_it_may_pass() {
    let stand_in = StandIn::start();
    let mut told = Vec::new();
    for mishap in [Mishap::Status(503, 0), Mishap::Limited(7), Mishap::Torn, Mishap::Reset] {
        // A fresh one each time: a pause that is wanted is kept.
        let good = client(&stand_in, "good-token");
        stand_in.outage(Some(mishap));
        let error = good.zone("muppit.au").await.expect_err("a fault");
        assert!(error.retry(), "{error}");
        told.push((error.offline(), error.pause()));
    }
    let none = Duration::ZERO;
    let seven = Duration::from_secs(7);
    assert_eq!(told, [(false, none), (false, seven), (true, none), (true, none)]);
    stand_in.outage(None);

    let bad = client(&stand_in, "bad-token");
    assert!(matches!(bad.verify().await, Err(CloudflareError::Token { code: 1000, .. })));
    let denied = bad.zone("muppit.au").await.expect_err("no token");
    assert!(matches!(denied, CloudflareError::Denied { need: Need::ZoneRead, code: 9109 }));
    stand_in.grant("narrow", &[Grant::ZoneRead, Grant::TunnelRead]);
    let narrow = client(&stand_in, "narrow");
    let zone = narrow.zone("muppit.au").await.expect("it may read zones");
    let denied = narrow.may_edit_tunnels(&zone.account.id).await.expect_err("it may not");
    assert!(matches!(denied, CloudflareError::Denied { need: Need::TunnelEdit, code: 10000 }));
    assert!(!denied.retry() && denied.hint().expect("a remedy").contains("Cloudflare Tunnel"));
    let denied = narrow.may_edit_records(&zone).await.expect_err("nor that");
    assert!(matches!(denied, CloudflareError::Denied { need: Need::DnsEdit, code: 10000 }));
}

#[tokio::test]
async fn a_token_that_is_the_accounts_own_is_one_as_soon_as_the_account_or_a_zone_is_known() {
    let stand_in = StandIn::start();
    let good = client(&stand_in, "good-token");
    let account = good.zone("muppit.au").await.expect("the zone").account.id;
    stand_in.grant_of_account("own", &[Grant::ZoneRead]);
    let own = client(&stand_in, "own");
    own.verify().await.expect("it lists zones");
    own.zone("muppit.au").await.expect("the zone");
    own.verify().await.expect("the account knows it");
    let last = stand_in.calls().pop();
    assert_eq!(last, Some(format!("GET /accounts/{account}/tokens/verify")));

    // Without the right to read zones only the account can tell.
    stand_in.grant_of_account("own", &[Grant::TunnelEdit]);
    let own = client(&stand_in, "own");
    own.of_account("Home");
    let refused = own.verify().await.expect_err("nobody knows it");
    assert!(matches!(refused, CloudflareError::Token { code: 1000, .. }), "{refused}");
    own.of_account(&account);
    own.verify().await.expect("the account knows it");
    stand_in.revoke("own");
    let refused = own.verify().await.expect_err("it is none any more");
    assert!(matches!(refused, CloudflareError::Token { code: 1000, .. }), "{refused}");
}

#[tokio::test]
async fn a_pause_that_is_wanted_is_kept_by_all_that_comes_meanwhile() {
    let stand_in = StandIn::start();
    let client = client(&stand_in, "good-token");
    stand_in.outage(Some(Mishap::Limited(2)));
    client.zone("muppit.au").await.expect_err("too many requests");
    stand_in.outage(None);
    let calls = stand_in.calls().len();
    for _ in 0..3 {
        let error = client.verify().await.expect_err("it is not over");
        assert!(matches!(error, CloudflareError::Limited { .. }), "{error}");
    }
    assert_eq!(stand_in.calls().len(), calls, "nobody was asked");
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.zone("muppit.au").await.expect("it is over");
}

#[tokio::test]
async fn no_call_is_sent_on_to_where_an_answer_points() {
    let stand_in = StandIn::start();
    let client = client(&stand_in, "good-token");
    let zone = client.zone("muppit.au").await.expect("the zone").id;
    stand_in.outage(Some(Mishap::Moved));
    let calls = stand_in.calls().len();
    let body = json!({"type": "CNAME", "name": "a.muppit.au", "content": "x", "ttl": 1});
    for error in [
        client.create_record(&zone, &body).await.map(|_| ()).expect_err("it is elsewhere"),
        client.update_record(&zone, "1", &body).await.expect_err("it is elsewhere"),
        client.delete_record(&zone, "1").await.expect_err("it is elsewhere"),
        client.zone("muppit.au").await.map(|_| ()).expect_err("it is elsewhere"),
    ] {
        assert!(error.to_string().contains("points elsewhere"), "{error}");
    }
    assert_eq!(stand_in.calls().len() - calls, 4);
    assert!(stand_in.records().is_empty());
}
