//! Every demand of the specification has an ID, a place in the code and a proof.

use std::collections::BTreeSet;

use chancery_tests::spec::{Paragraph, citations, ids_in, paragraphs, proofs};

fn defined() -> BTreeSet<String> {
    paragraphs().into_iter().filter_map(|paragraph| paragraph.id).collect()
}

fn list(ids: impl IntoIterator<Item = impl ToString>) -> String {
    ids.into_iter().map(|id| id.to_string()).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_sentence_with_must_has_an_id_of_its_own() {
    let explains_the_word = |paragraph: &Paragraph| paragraph.text.contains("BCP 14");
    let wrong: Vec<String> = paragraphs()
        .into_iter()
        .filter(|paragraph| !explains_the_word(paragraph))
        .filter(|paragraph| paragraph.demands() != usize::from(paragraph.id.is_some()))
        .map(|paragraph| format!("{}: {}", paragraph.place, paragraph.text))
        .collect();
    assert!(wrong.is_empty(), "one MUST for each ID, one ID for each MUST:\n{}", list(wrong));
}

#[test]
fn every_id_is_well_formed_and_used_once() {
    let mut seen = BTreeSet::new();
    for paragraph in paragraphs() {
        if let Some(id) = paragraph.id {
            assert_eq!(ids_in(&id).len(), 1, "{}: {id} is not area.topic.number", paragraph.place);
            let document = paragraph.place.replace("mls-profile.md", "mls.md");
            assert!(document.contains(&format!("/{}.md", id.split('.').next().unwrap())), "{id} in {document}");
            assert!(seen.insert(id.clone()), "{}: {id} was used before", paragraph.place);
        }
    }
    assert!(!seen.is_empty());
}

#[test]
fn every_requirement_is_cited_in_code() {
    let cited = citations();
    let missing: Vec<String> = defined().into_iter().filter(|id| !cited.contains_key(id)).collect();
    assert!(missing.is_empty(), "no code names these requirements:\n{}", list(missing));
}

#[test]
fn every_citation_is_of_a_requirement() {
    let defined = defined();
    for (id, files) in citations() {
        assert!(defined.contains(&id), "{id} is not in the specification: {files:?}");
    }
    for (id, files) in proofs() {
        assert!(defined.contains(&id), "{id} is not in the specification: {files:?}");
    }
    for paragraph in paragraphs() {
        for id in ids_in(&paragraph.text) {
            assert!(defined.contains(&id), "{}: {id} is not defined", paragraph.place);
        }
    }
}

#[test]
fn every_requirement_is_proved_by_a_test_or_a_vector() {
    let proved = proofs();
    let missing: Vec<String> = defined().into_iter().filter(|id| !proved.contains_key(id)).collect();
    assert!(missing.is_empty(), "no test says that it proves these requirements:\n{}", list(missing));
}

#[test]
fn ids_are_found_in_any_text() {
    let text = "(wire.frame.1): see `mls.judge.12`, wire.md#frames, relay.rs, relay.append.x and 1.2.3.";
    assert_eq!(ids_in(text), BTreeSet::from(["wire.frame.1".to_owned(), "mls.judge.12".to_owned()]));
}
