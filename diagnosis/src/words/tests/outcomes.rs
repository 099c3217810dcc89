//! What became of it: what the client got, where that is no gateway's error.

use super::*;
use crate::outcome::Answer;

/// An upstream that answered 503 itself.
fn answered(outcome: Outcome, status: u16, answer: Option<Answer>) -> (String, String) {
    let failed = Attempt { status: Some(503), answer, ..attempt() };
    Case { outcome, status, ..case(Cause::UpstreamResponse, failed) }.said()
}

#[test]
fn what_the_client_got() {
    let (summary, advice) = answered(Outcome::Passed, 503, Some(Answer::Passed));
    assert_eq!(summary, "10.0.3.7:8080 answered 503 itself.");
    assert_eq!(advice, "Look at the upstream's own log for the 503: nginx passed its answer on.");
    let (summary, advice) = answered(Outcome::Masked, 404, None);
    assert_eq!(summary, "10.0.3.7:8080 answered 503 itself. The client got 404.");
    assert_eq!(advice, "Look at the upstream's own log for the 503.");
    let masked = |status| answered(Outcome::Masked, status, None).0;
    assert!(masked(206).ends_with(" The client was served all the same."));
    assert_eq!(masked(0), "10.0.3.7:8080 answered 503 itself.");
    assert_eq!(
        answered(Outcome::Aborted, 499, Some(Answer::Passed)).1,
        "Look at the upstream's own log for the 503."
    );
    // Where it is not known what was done, nothing is said of it.
    assert_eq!(
        answered(Outcome::Passed, 503, None).1,
        "Look at the upstream's own log for the 503."
    );
}

/// Guards against an answer being said to have been passed on of which the client got nothing: an
/// error page took its place, or it was not the client who had asked.
#[test]
fn an_answer_that_the_client_did_not_get() {
    let (summary, advice) = answered(Outcome::Passed, 503, Some(Answer::Replaced));
    assert_eq!(
        summary,
        "10.0.3.7:8080 answered 503 itself. The client got an error page in its place."
    );
    assert_eq!(
        advice,
        "Look at the upstream's own log for the 503; the client got an error_page in its place (proxy_intercept_errors)."
    );
    let (summary, _) = answered(Outcome::Passed, 500, Some(Answer::Replaced));
    assert_eq!(summary, "10.0.3.7:8080 answered 503 itself. The client got 500.");
    for outcome in [Outcome::Passed, Outcome::Masked] {
        let (summary, advice) = answered(outcome, 503, Some(Answer::ToSubrequest));
        assert!(summary.starts_with("10.0.3.7:8080 answered 503 itself."));
        assert_eq!(
            advice,
            "Look at the upstream's own log for the 503; it answered a subrequest of nginx's (auth_request, mirror, an include), not the client."
        );
    }
}

/// Guards against an answer being said to have been passed on where nginx had something else for the
/// client.
#[test]
fn an_answer_that_nginx_did_without() {
    for (answer, then) in [
        (Answer::Retried, "nginx went on to another server (proxy_next_upstream)."),
        (Answer::Stale, "nginx had an old response in its cache (proxy_cache_use_stale)."),
        (Answer::Redirected, "nginx followed the X-Accel-Redirect in it."),
    ] {
        let (summary, advice) = answered(Outcome::Failed, 500, Some(answer));
        assert_eq!(summary, "10.0.3.7:8080 answered 503 itself. The client got 500.");
        assert_eq!(advice, format!("Look at the upstream's own log for the 503; {then}"));
        let (summary, masked) = answered(Outcome::Masked, 200, Some(answer));
        assert!(summary.ends_with(" The client was served all the same."), "{summary}");
        assert_eq!(masked, advice);
    }
}

/// What nginx shows as the status 9 is no status that a client could get: a response without a status
/// line. Whether that is the one that failed, the outcome tells.
#[test]
fn a_response_without_a_status_line() {
    let got = |outcome| {
        let old = Attempt { status: Some(9), ..attempt() };
        Case { outcome, status: 9, ..case(Cause::InvalidResponse, old) }.summary()
    };
    let sent = "10.0.3.7:8080 sent something that is not a valid response.";
    assert_eq!(got(Outcome::Truncated), format!("{sent} nginx took it for an HTTP/0.9 response."));
    assert_eq!(got(Outcome::Masked), format!("{sent} The client got an HTTP/0.9 response."));
    assert_eq!(got(Outcome::Aborted), sent);
    // Any other number is a status, however odd.
    let odd = Case { outcome: Outcome::Masked, status: 42, ..case(Cause::StreamReset, attempt()) };
    assert!(odd.summary().ends_with(" The client got 42."));
}

/// Guards against advice that is general where it is known what took the servers out: the operator
/// would have to look for it in the records before.
#[test]
fn servers_that_were_taken_out() {
    let of = |module, peers: &[PeerReport]| {
        let failed = Attempt { phase: Some(Phase::Select), ..attempt() };
        Case { peers, module, ..case(Cause::NoLiveUpstreams, failed) }.advice()
    };
    let group = |peers: &[PeerReport]| of("fastcgi", peers);
    let out = |cause| peer(State::Unavailable, cause);
    let refused = || out(Some(Cause::ConnectionRefused));
    assert_eq!(
        group(&[refused(), peer(State::Down, None), refused()]),
        "2 servers were taken out by connection_refused. See on the host of each whether the process runs and listens on its address and port (ss -ltn)."
    );
    assert!(
        group(&[refused()]).starts_with("The server was taken out by connection_refused. See ")
    );
    let starts = |peers: &[PeerReport], begin: &str| {
        let said = group(peers);
        assert!(said.starts_with(begin), "{said}");
    };
    starts(&[refused(), refused()], "The servers were taken out by");
    starts(&[refused(), peer(State::Down, None)], "One server was taken out by");
    // The error is not that answer.
    let answered = || out(Some(Cause::UpstreamResponse));
    assert_eq!(
        of("proxy", &[answered(), answered()]),
        "The servers were taken out by upstream_response. That is a 502, 503 or 504 of the upstream's own, which proxy_next_upstream takes for a failure: look at the upstream's log."
    );
    let unix = PeerReport { peer: "unix:/run/a.sock".into(), ..refused() };
    let unix = group(&[unix]);
    assert!(unix.contains("ss -lx"), "{unix}");
    let general = "Find what took the servers out";
    for peers in [
        &[refused(), out(Some(Cause::ResponseTimedOut))][..],
        &[refused(), out(None)],
        &[peer(State::Up, Some(Cause::ConnectionRefused))],
        &[],
    ] {
        let said = group(peers);
        assert!(said.starts_with(general), "{peers:?}");
        // nginx takes these for failures of a server too, and the module has no cause for them.
        let all_known = peers.len() == 2 && peers.iter().all(|peer| peer.last_cause.is_some());
        assert_eq!(said.contains("fastcgi_next_upstream has http_500"), !all_known, "{said}");
    }
    let invalid = of("grpc", &[out(Some(Cause::InvalidHeader))]);
    assert!(invalid.contains("(grpcurl -v)"), "{invalid}");
    for (module, cause) in ["proxy", "grpc", "memcached"]
        .into_iter()
        .flat_map(|module| Cause::ALL.iter().map(move |cause| (module, *cause)))
    {
        let said = of(module, &[out(Some(cause)), out(Some(cause))]);
        // One of a reused connection is told by a finding.
        let named = said.contains(cause.slug()) || cause == Cause::KeepaliveRace;
        assert!(named && said.len() <= LONGEST, "{} of {cause:?}: {said}", said.len());
        assert!(module == "proxy" || !said.contains("proxy_"), "{said}");
    }
}
