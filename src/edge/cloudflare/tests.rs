//! What answers mean, what is never shown, and the bounds on calls.

use super::*;

fn judged(status: u16, body: &str) -> CloudflareError {
    let status = StatusCode::from_u16(status).expect("a status");
    judge(Need::DnsEdit, "record x".into(), status, None, body.as_bytes()).expect_err("refused")
}

#[test]
fn each_refusal_says_what_it_is_whether_a_retry_helps_and_what_to_do() {
    let envelope = |code: i64, message: &str| {
        json!({"success": false, "errors": [{"code": code, "message": message}],
            "messages": [], "result": null})
        .to_string()
    };
    let cases = [
        (401, envelope(1000, "Invalid API Token"), false, "the API token is refused"),
        (400, envelope(6003, "Invalid request headers"), false, "the API token is refused"),
        (403, envelope(10000, "Authentication error"), false, "may not change DNS records"),
        (405, envelope(10000, "PATCH method not allowed"), false, "may not change DNS records"),
        (429, String::new(), true, "a pause of 60 s"),
        (502, "<html>".to_owned(), true, "HTTP status 502"),
        (404, envelope(81044, "Record does not exist."), true, "is not there any more"),
        (400, envelope(81053, "exists\u{1b}[2J"), false, "refuses: exists[2J (code 81053)"),
        (400, envelope(1022, "active connections"), true, "record x still has connections"),
        (200, "{\"success\": tr".to_owned(), true, "without an envelope"),
    ];
    for (status, body, retry, said) in cases {
        let error = judged(status, &body);
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(error.retry(), retry, "{error}");
    }
    let denied = judged(403, &envelope(9109, "Unauthorized"));
    assert!(denied.hint().expect("a remedy").contains("Zone / DNS / Edit"));
}

#[test]
fn neither_the_client_nor_its_header_shows_the_token() {
    let token = Plaintext::new(b"hunter2\n".to_vec());
    let client = Cloudflare::new("http://127.0.0.1:1", token).expect("a client");
    let header = client.bearer().expect("a header");
    assert_eq!(header.as_bytes(), b"Bearer hunter2");
    assert!(!format!("{client:?} {header:?}").contains("hunter2"));
    let odd = Cloudflare::new("http://127.0.0.1:1", Plaintext::new(b"a\nb".to_vec()));
    let error = odd.expect("a client").bearer().expect_err("no header");
    assert!(!error.to_string().contains('\n'));
}

#[test]
fn half_of_the_accounts_allowance_is_left_to_others() {
    let token = Plaintext::new(b"t".to_vec());
    let client = Cloudflare::new("http://127.0.0.1:1", token).expect("a client");
    let now = Instant::now();
    for _ in 0..BUDGET {
        client.spend(now).expect("within the budget");
    }
    let error = client.spend(now).expect_err("beyond it");
    assert!(error.pause() > Duration::from_secs(290) && error.retry());
}

#[test]
fn a_pause_is_kept_by_every_call_and_told_in_the_same_words() {
    let token = Plaintext::new(b"t".to_vec());
    let client = Cloudflare::new("http://127.0.0.1:1", token).expect("a client");
    let now = Instant::now();
    client.rest(Duration::from_secs(60), now);
    let asked = |after: u64| client.spend(now + Duration::from_secs(after));
    for (after, left) in [(0, 60), (59, 1)] {
        let error = asked(after).expect_err("too early");
        assert_eq!(error.pause(), Duration::from_secs(left));
        assert!(error.to_string().contains("a pause of 60 s"), "{error}");
    }
    asked(60).expect("it is over");
}
