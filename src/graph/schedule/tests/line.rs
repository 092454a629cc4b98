//! The STATUS line.

use super::*;

#[test]
fn the_line_names_what_is_wrong_before_what_waits_for_it() {
    let depends = json!({"dependsOn": [{"name": "z"}]});
    let mut graph = declared(vec![order("a", depends), order("z", json!({}))]);
    assert_eq!(started(&mut graph, 3), ["run z by boot"]);
    graph.handle(Event::Finished(key("z"), failed(Retry::Interval, "r1")), 4);
    let line = graph.summary(0).line();
    assert!(line.ends_with("; flux-system/z: render: no"), "{line}");
}

#[test]
fn the_line_says_that_it_starts_and_counts_what_is_suspended_apart() {
    let mut starts = graph();
    started(&mut starts, 0);
    starts.handle(Event::Polled(source_key(), Ok(Some(revision("r1")))), 1);
    started(&mut starts, 1);
    assert_eq!(starts.summary(0).line(), "starting with clusters/x");
    let mut graph = declared(vec![order("a", json!({})), order("b", json!({}))]);
    started(&mut graph, 3);
    for name in ["a", "b"] {
        graph.handle(Event::Finished(key(name), ready("r1")), 4);
    }
    assert_eq!(graph.summary(0).line(), "r1; 3/3 Kustomizations ready, 3 objects");
    graph.handle(Event::Suspend(key("b"), Some("by me".into())), 5);
    assert_eq!(graph.summary(0).line(), "r1; 2/3 Kustomizations ready, 1 suspended, 3 objects");
    // What is stopped from the start does not start.
    let mut stopped = self::graph();
    stopped.handle(Event::Suspend(key("flux-system"), Some("by me".into())), 0);
    started(&mut stopped, 0);
    assert_eq!(stopped.summary(0).line(), "0/1 Kustomizations ready, 1 suspended, 0 objects");
}
