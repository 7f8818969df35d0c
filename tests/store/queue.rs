//! Batches that wait for the disk.

use super::*;

fn submit_all(store: &Store, batches: Vec<Vec<Record>>) -> Vec<(usize, Result<u64, &'static str>)> {
    let (answers, answered) = mpsc::channel();
    for (at, batch) in batches.into_iter().enumerate() {
        let answers = answers.clone();
        store.submit(batch, move |result| {
            answers.send((at, result.map_err(|error| error.code()))).unwrap();
        });
    }
    drop(answers);
    answered.iter().collect()
}

#[test]
fn batches_that_wait_are_durable_in_order_and_share_an_fsync() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let batches: Vec<Vec<Record>> = (0..500).map(|n| vec![put(n % 50), put(1_000 + n)]).collect();
    let answers = submit_all(&store, batches);
    assert!(answers.iter().map(|(at, _)| *at).eq(0..500), "in order of submission");
    let seqs: Vec<u64> = answers.iter().map(|(_, result)| result.unwrap()).collect();
    assert!(seqs.is_sorted());
    assert_eq!(store.last_seq(), seqs[499]);
    assert!(store.last_seq() < 500, "{} fsyncs for 500 batches", store.last_seq());
    let expected = store.load().unwrap();
    assert_eq!(expected.len(), 550);
    drop(store);
    assert_eq!(open(dir.path()).0.load().unwrap(), expected);
}

/// What is written at once is held in memory several times.
#[test]
fn a_burst_is_written_in_batches_of_bounded_size() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &meta()).unwrap();
    let batch = |n: u64| vec![upsert(1, n.to_be_bytes(), vec![7; 256 << 10])];
    let answers = submit_all(&store, (0..64).map(batch).collect());
    assert!(answers.iter().all(|(_, result)| result.is_ok()));
    assert!(store.last_seq() >= 12, "16 MiB in {} batches", store.last_seq());
    assert_eq!(store.load().unwrap().len(), 64);
}

#[test]
fn what_was_submitted_is_written_before_the_store_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for n in 0..200 {
        store.submit(vec![put(n)], |result| assert!(result.is_ok()));
    }
    drop(store);
    assert_eq!(open(dir.path()).1.records, 200);
}

/// What comes later may build on the batch that was refused.
#[test]
fn a_refused_batch_stops_those_behind_it_and_none_before_it() {
    let large = upsert(1, *b"k", vec![0; capex::store::MAX_FRAME_BYTES]);
    let reserved = upsert(0xff, *b"seq", *b"x");
    for (bad, code) in [(large, "store.record_too_large"), (reserved, "store.reserved_table")] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        let batches = vec![vec![put(1)], vec![put(3), bad], vec![put(2)]];
        let answers = submit_all(&store, batches);
        assert!(answers.iter().map(|(at, _)| *at).eq(0..3), "in order of submission");
        let codes: Vec<Option<&str>> = answers.iter().map(|(_, result)| result.err()).collect();
        assert_eq!(codes, [None, Some(code), Some("store.poisoned")]);
        assert_eq!(store.load().unwrap(), vec![put(1)]);
        drop(store);
        let (store, _) = open(dir.path());
        assert_eq!(store.load().unwrap(), vec![put(1)]);
        store.persist(&[put(2)]).unwrap();
    }
}

#[test]
fn a_compaction_and_appending_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..40 {
                submit_all(&store, (0..20).map(|n| vec![put(round * 10 + n)]).collect());
            }
        });
        scope.spawn(|| (0..8).for_each(|_| store.compact().unwrap()));
    });
    let (expected, seq) = (store.load().unwrap(), store.last_seq());
    assert_eq!(expected.len(), 410);
    store.settle().unwrap();
    let files = journal_files(dir.path());
    let on_disk: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert_eq!(on_disk, store.journal_bytes());
    drop(store);
    let (store, report) = open(dir.path());
    assert_eq!((store.last_seq(), report.quarantined, report.truncated_bytes), (seq, None, 0));
    assert_eq!(store.load().unwrap(), expected);
}

/// Nothing in the store panics; what it calls might.
#[test]
fn a_writer_that_panics_leaves_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let (begun, begins) = mpsc::channel();
    store.submit(vec![put(1)], move |_| {
        begun.send(()).unwrap();
        panic!("on purpose");
    });
    begins.recv().unwrap();
    for number in 2..4 {
        let (answer, answered) = mpsc::channel();
        store.submit(vec![put(number)], move |result| answer.send(result).unwrap());
        let told = answered.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
        assert_eq!(told.unwrap_err().code(), "store.poisoned");
    }
    drop(store);
    assert_eq!(open(dir.path()).1.records, 1, "what was acknowledged is there");
}
