//! What a cluster keeps: objects, the history of their changes, and who watches.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;
use tokio::sync::mpsc;

use super::selector::Selector;

/// Changes of one resource type that are remembered for watches that start in the past.
const HISTORY: usize = 4096;
/// Changes that a watcher may lag behind before it is dropped, as API servers drop slow watchers.
const WATCHER_BACKLOG: usize = 16_384;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Added,
    Modified,
    Deleted,
}

impl Verb {
    /// As watch events call it.
    pub(super) const fn event(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// The resource type's id.
    pub(super) kind: String,
    pub(super) verb: Verb,
    pub(super) revision: u64,
    /// As it is now; for a deletion, as it was last.
    pub(super) object: Arc<Value>,
    /// As it was before.
    pub(super) previous: Option<Arc<Value>>,
}

impl Change {
    /// What a watcher with this selector sees of the change: objects that begin to match are new to it.
    fn seen_by(&self, selector: &Selector) -> Option<(Verb, Arc<Value>)> {
        let matches = selector.matches(&self.object);
        let matched = self.previous.as_ref().is_some_and(|previous| selector.matches(previous));
        let verb = match (self.verb, matched, matches) {
            (Verb::Deleted, _, true) | (Verb::Modified, true, false) => Verb::Deleted,
            (Verb::Added, _, true) | (Verb::Modified, false, true) => Verb::Added,
            (Verb::Modified, true, true) => Verb::Modified,
            _ => return None,
        };
        Some((verb, self.object.clone()))
    }
}

struct Watcher {
    sender: mpsc::Sender<(Verb, Arc<Value>)>,
    selector: Selector,
}

/// A watch as its client sees it.
pub(super) struct Watch {
    /// What had happened by the time it began.
    pub(super) past: Vec<(Verb, Arc<Value>)>,
    /// What happens from then on.
    pub(super) future: mpsc::Receiver<(Verb, Arc<Value>)>,
    /// The revision at which it began.
    pub(super) revision: u64,
}

/// Namespace (empty for none) and name.
pub(super) type ObjectKey = (String, String);

#[derive(Default)]
struct Collection {
    objects: BTreeMap<ObjectKey, Arc<Value>>,
    history: VecDeque<Arc<Change>>,
    /// Changes up to this revision are forgotten.
    forgotten: u64,
    watchers: Vec<Watcher>,
}

/// The objects of one cluster.
#[derive(Default)]
pub(super) struct Store {
    /// The revision of the newest change.
    pub(super) revision: u64,
    collections: BTreeMap<String, Collection>,
}

impl Store {
    /// One object.
    pub(super) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.collections.get(kind)?.objects.get(&(namespace.into(), name.into())).cloned()
    }

    /// The objects of one type, by namespace and name.
    pub(super) fn iter(&self, kind: &str) -> impl Iterator<Item = (&ObjectKey, &Arc<Value>)> {
        self.collections.get(kind).into_iter().flat_map(|collection| &collection.objects)
    }

    /// The objects of one type that are meant, in order, after `start`.
    pub(super) fn select<'store>(
        &'store self,
        kind: &str,
        selector: &'store Selector,
        start: Option<ObjectKey>,
    ) -> impl Iterator<Item = (&'store ObjectKey, &'store Arc<Value>)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let namespace = selector.namespace.as_deref();
        let from = match (start, namespace) {
            (Some(start), _) => Excluded(start),
            (None, Some(namespace)) => Included((namespace.to_owned(), selector.name().unwrap_or_default().to_owned())),
            (None, None) => Unbounded,
        };
        self.collections
            .get(kind)
            .into_iter()
            .flat_map(move |collection| collection.objects.range((from.clone(), Unbounded)))
            .take_while(move |((in_namespace, _), _)| namespace.is_none_or(|wanted| wanted == in_namespace))
            .filter(|(_, object)| selector.matches(object))
    }

    /// Every object of every type.
    pub(super) fn everything(&self) -> impl Iterator<Item = (&String, &ObjectKey, &Arc<Value>)> {
        self.collections
            .iter()
            .flat_map(|(kind, collection)| collection.objects.iter().map(move |(key, object)| (kind, key, object)))
    }

    /// A store as it was, without its history: watches cannot begin in the past.
    pub(super) fn restored(revision: u64, objects: impl IntoIterator<Item = (String, Arc<Value>)>) -> Self {
        let mut store = Self { revision, ..Self::default() };
        for (kind, object) in objects {
            let collection = store.collections.entry(kind).or_default();
            collection.forgotten = revision;
            collection.objects.insert(key_of(&object), object);
        }
        store
    }

    /// Writes an object, gives it its resource version, and tells the watchers.
    pub(super) fn put(&mut self, kind: &str, mut object: Value) -> Arc<Change> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = Value::String(self.revision.to_string());
        let object = Arc::new(object);
        let collection = self.collections.entry(kind.to_owned()).or_default();
        let previous = collection.objects.insert(key_of(&object), object.clone());
        let verb = if previous.is_some() { Verb::Modified } else { Verb::Added };
        let change = Change { kind: kind.into(), verb, revision: self.revision, object, previous };
        collection.publish(change)
    }

    /// Removes an object and tells the watchers.
    pub(super) fn remove(&mut self, kind: &str, key: &ObjectKey) -> Option<Arc<Change>> {
        let collection = self.collections.get_mut(kind)?;
        let previous = collection.objects.remove(key)?;
        self.revision += 1;
        let mut object = (*previous).clone();
        object["metadata"]["resourceVersion"] = Value::String(self.revision.to_string());
        let change = Change {
            kind: kind.into(),
            verb: Verb::Deleted,
            revision: self.revision,
            object: Arc::new(object),
            previous: Some(previous),
        };
        Some(collection.publish(change))
    }

    /// Begins a watch: after revision `since`, or with everything that exists now. `Err` holds the oldest revision
    /// that a watch can begin at.
    pub(super) fn watch(&mut self, kind: &str, selector: Selector, since: Option<u64>) -> Result<Watch, u64> {
        let past = match since {
            None => self.select(kind, &selector, None).map(|(_, object)| (Verb::Added, object.clone())).collect(),
            Some(since) => {
                let collection = self.collections.entry(kind.to_owned()).or_default();
                if since < collection.forgotten {
                    return Err(collection.forgotten);
                }
                let from = collection.history.partition_point(|change| change.revision <= since);
                collection.history.range(from..).filter_map(|change| change.seen_by(&selector)).collect()
            }
        };
        let (sender, future) = mpsc::channel(WATCHER_BACKLOG);
        let collection = self.collections.entry(kind.to_owned()).or_default();
        collection.watchers.retain(|watcher| !watcher.sender.is_closed());
        collection.watchers.push(Watcher { sender, selector });
        Ok(Watch { past, future, revision: self.revision })
    }
}

impl Collection {
    fn publish(&mut self, change: Change) -> Arc<Change> {
        let change = Arc::new(change);
        self.watchers.retain(|watcher| match change.seen_by(&watcher.selector) {
            Some(seen) => watcher.sender.try_send(seen).is_ok(),
            None => !watcher.sender.is_closed(),
        });
        self.history.push_back(change.clone());
        if self.history.len() > HISTORY
            && let Some(dropped) = self.history.pop_front()
        {
            self.forgotten = dropped.revision;
        }
        change
    }
}

/// Where an object is kept.
pub(super) fn key_of(object: &Value) -> ObjectKey {
    (super::object::namespace(object).to_owned(), super::object::name(object).to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, zone: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"zone": zone}}})
    }

    #[test]
    fn an_object_that_begins_to_match_is_added_for_the_watcher() {
        let mut store = Store::default();
        let selector = Selector::parse(None, "zone=1", "", false).expect("a selector");
        store.put("nodes", node("a", "2"));
        let mut watch = store.watch("nodes", selector, None).expect("nothing is forgotten");
        assert!(watch.past.is_empty());
        store.put("nodes", node("a", "1"));
        store.put("nodes", node("a", "1"));
        store.put("nodes", node("a", "3"));
        let verbs: Vec<Verb> = std::iter::from_fn(|| watch.future.try_recv().ok()).map(|(verb, _)| verb).collect();
        assert_eq!(verbs, [Verb::Added, Verb::Modified, Verb::Deleted]);
    }

    #[test]
    fn history_is_bounded_and_says_so() {
        let mut store = Store::default();
        for _ in 0..HISTORY + 10 {
            store.put("nodes", node("a", "1"));
        }
        let watch =
            |store: &mut Store, since| store.watch("nodes", Selector::default(), Some(since)).map(|w| w.past.len());
        assert_eq!(watch(&mut store, 5), Err(10));
        assert_eq!(watch(&mut store, 10), Ok(HISTORY));
        let newest = store.revision;
        assert_eq!(watch(&mut store, newest), Ok(0));
    }
}
