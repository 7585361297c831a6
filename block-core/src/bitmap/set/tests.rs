use super::*;

fn spec(name: &str, granularity_bytes: u32) -> BitmapSpec {
    BitmapSpec {
        name: name.into(),
        granularity_bytes,
        persistent: false,
        disabled: false,
    }
}

const MIB: u64 = 1 << 20;

#[test]
fn records_while_enabled_only() {
    let set = BitmapSet::default();
    assert!(set.is_empty());
    let a = set.add(16 * MIB, &spec("a", 65536)).unwrap();
    assert!(!set.is_empty());
    set.mark_dirty(65535, 2);
    assert_eq!(a.info().unwrap().dirty_bytes, 131_072);
    a.disable().unwrap();
    assert!(set.is_empty());
    set.mark_dirty(MIB, 1);
    assert_eq!(a.info().unwrap().dirty_bytes, 131_072);
    a.enable().unwrap();
    set.mark_dirty(MIB, 1);
    assert_eq!(a.dirty_ranges(), [(0, 131_072), (MIB, 65536)]);
    a.remove().unwrap();
    assert!(set.is_empty());
    assert!(set.find("a").is_none());
}

#[test]
fn refuses_names_and_granularities() {
    let set = BitmapSet::default();
    set.add(MIB, &spec("a", 512)).unwrap();
    let text = |spec: &BitmapSpec| set.add(MIB, spec).unwrap_err().to_string();
    assert_eq!(text(&spec("a", 512)), "Bitmap already exists: a");
    assert_eq!(text(&spec("", 512)), "Bitmap name cannot be empty");
    assert_eq!(
        text(&spec("b", 256)),
        "Granularity must be power of 2 and at least 512"
    );
    assert_eq!(
        text(&spec("b", 768)),
        "Granularity must be power of 2 and at least 512"
    );
    assert!(text(&spec(&"x".repeat(1024), 512)).starts_with("Bitmap name too long: x"));
    set.add(MIB, &spec("b", 1 << 31)).unwrap();
}

/// The table of what a job leaves in a bitmap: B0 is dirty before, N is written meanwhile, U stays uncopied.
#[test]
fn outcome_of_each_mode() {
    const B0: (u64, u64) = (0, 65536);
    const N: (u64, u64) = (2 * MIB, 65536);
    const U: (u64, u64) = (4 * MIB, 65536);
    let run = |mode, success| {
        let set = BitmapSet::default();
        let a = set.add(16 * MIB, &spec("a", 65536)).unwrap();
        set.mark_dirty(B0.0, B0.1);
        a.freeze(mode).unwrap();
        assert!(a.info().unwrap().busy);
        set.mark_dirty(N.0, N.1);
        assert_eq!(a.dirty_ranges(), [B0]);
        assert_eq!(a.enable().unwrap_err().kind(), ErrorKind::Busy);
        a.thaw(mode, success, [U]);
        assert!(!a.info().unwrap().busy);
        a.dirty_ranges()
    };
    assert_eq!(run(BitmapMode::OnSuccess, true), [N]);
    assert_eq!(run(BitmapMode::OnSuccess, false), [B0, N]);
    assert_eq!(run(BitmapMode::Never, true), [B0, N]);
    assert_eq!(run(BitmapMode::Never, false), [B0, N]);
    assert_eq!(run(BitmapMode::Always, true), [N]);
    assert_eq!(run(BitmapMode::Always, false), [N, U]);
}

#[test]
fn a_consumed_bitmap_stands_where_its_successor_stood() {
    let set = BitmapSet::default();
    let old = set.add(MIB, &spec("old", 512)).unwrap();
    set.add(MIB, &spec("new", 512)).unwrap();
    let names = || {
        let infos = set.infos();
        infos
            .into_iter()
            .map(|info| info.name.map(|name| name.to_string()))
            .collect::<Vec<_>>()
    };
    let named = |name: &str| Some(name.to_owned());
    old.freeze(BitmapMode::OnSuccess).unwrap();
    assert_eq!(names(), [None, named("new"), named("old")]);
    old.thaw(BitmapMode::OnSuccess, false, []);
    assert_eq!(names(), [named("new"), named("old")]);
    old.freeze(BitmapMode::OnSuccess).unwrap();
    set.add(MIB, &spec("newest", 512)).unwrap();
    old.thaw(BitmapMode::OnSuccess, true, []);
    assert_eq!(names(), [named("newest"), named("old"), named("new")]);
}

#[test]
fn a_disabled_bitmap_has_a_disabled_successor() {
    let set = BitmapSet::default();
    let a = set.add(MIB, &spec("a", 65536)).unwrap();
    set.mark_dirty(0, 1);
    a.disable().unwrap();
    a.freeze(BitmapMode::OnSuccess).unwrap();
    assert!(set.is_empty());
    set.mark_dirty(100_000, 1);
    a.thaw(BitmapMode::OnSuccess, false, []);
    assert_eq!(a.dirty_ranges(), [(0, 65536)]);
    assert!(!a.info().unwrap().recording);
}

#[test]
fn merge_is_all_or_nothing_and_crosses_granularities() {
    let (set, other) = (BitmapSet::default(), BitmapSet::default());
    let target = set.add(MIB, &spec("t", 65536)).unwrap();
    let fine = set.add(MIB, &spec("f", 512)).unwrap();
    let far = other.add(MIB, &spec("z", 1 << 20)).unwrap();
    let long = other.add(2 * MIB, &spec("l", 512)).unwrap();
    fine.set_dirty(70_000, 100);
    let error = target
        .merge(&[fine.clone(), long.clone()])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "Bitmaps are of different sizes (destination size is 1048576, source size is 2097152) and can't be merged"
    );
    assert!(target.dirty_ranges().is_empty());
    assert_eq!(target.check_merge(&long).unwrap_err().to_string(), error);
    target.check_merge(&fine).unwrap();
    target.merge(&[fine.clone(), target.clone()]).unwrap();
    assert_eq!(target.dirty_ranges(), [(65536, 65536)]);
    far.set_dirty(0, 1);
    fine.merge(&[far]).unwrap();
    assert_eq!(fine.dirty_ranges(), [(0, MIB)]);
}

#[test]
fn stored_bitmaps_come_back() {
    let set = BitmapSet::default();
    let a = set
        .add(
            MIB + 100,
            &BitmapSpec {
                persistent: true,
                ..spec("a", 4096)
            },
        )
        .unwrap();
    set.add(MIB + 100, &spec("volatile", 4096)).unwrap();
    a.set_dirty(5000, 10_000);
    a.set_dirty(MIB, 100);
    let stored = set.to_store();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].dirty, [(4096, 12288), (MIB, 100)]);
    let again = BitmapSet::default();
    again.load(MIB + 100, stored, true);
    let b = again.get("a").unwrap();
    assert_eq!(b.dirty_ranges(), a.dirty_ranges());
    assert_eq!(
        b.clear().unwrap_err().to_string(),
        "Bitmap 'a' is readonly and cannot be modified"
    );
    again.set_read_only(false);
    b.clear().unwrap();
}

#[test]
fn an_inconsistent_bitmap_is_good_for_removal_only() {
    let set = BitmapSet::default();
    let stored = StoredBitmap {
        name: "a".into(),
        granularity_bytes: 65536,
        auto: true,
        inconsistent: true,
        dirty: Vec::new(),
    };
    set.load(MIB, vec![stored], false);
    assert!(set.is_empty());
    let a = set.get("a").unwrap();
    let text = "Bitmap 'a' is inconsistent and cannot be used";
    assert_eq!(a.enable().unwrap_err().to_string(), text);
    assert_eq!(a.freeze(BitmapMode::Never).unwrap_err().to_string(), text);
    assert_eq!(a.hold().unwrap_err().to_string(), text);
    set.set_read_only(true);
    assert_eq!(a.freeze(BitmapMode::Always).unwrap_err().to_string(), text);
    assert!(a.clear().unwrap_err().to_string().contains("is readonly"));
    set.set_read_only(false);
    a.remove().unwrap();
}

#[test]
fn resize_keeps_what_is_left_and_adds_clean_space() {
    let set = BitmapSet::default();
    let a = set.add(MIB, &spec("a", 65536)).unwrap();
    set.mark_dirty(0, MIB);
    set.resize(MIB / 2);
    set.resize(2 * MIB);
    assert_eq!(a.dirty_ranges(), [(0, MIB / 2)]);
}
