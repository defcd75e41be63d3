//! The places of the exporter's connections: so many are open at a time, and one that does not use its place gives way to a new one.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use tokio::sync::{Notify, oneshot};

/// Connections at a time.
pub(super) const PLACES: usize = 16;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its request is not whole.
    Reading,
    /// Its answer is made and written: it is not cut.
    Answering,
    /// It has its answer, and is to close.
    Closing,
}

/// Those that are taken.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The oldest one first.
    taken: RefCell<VecDeque<Taken>>,
    /// The number of the newest one.
    last: Cell<u64>,
    /// A connection has ended, or can give way from now on.
    changed: Notify,
}

#[derive(Debug)]
struct Taken {
    number: u64,
    stage: Stage,
    evict: oneshot::Sender<()>,
}

/// A connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Rc<Places>,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

impl Places {
    /// A place for a new connection, and in which stage the one was that gave way for it. Waits while every place belongs to a connection that is
    /// being answered.
    pub(super) async fn take(self: &Rc<Self>) -> (Place, Option<Stage>) {
        let stage = loop {
            if self.taken.borrow().len() < PLACES {
                break None;
            }
            match self.evict() {
                Some(stage) => break Some(stage),
                None => self.changed.notified().await,
            }
        };
        let number = self.last.get() + 1;
        self.last.set(number);
        let (evict, evicted) = oneshot::channel();
        self.taken.borrow_mut().push_back(Taken { number, stage: Stage::Reading, evict });
        (Place { places: self.clone(), number, evicted }, stage)
    }

    /// Has one give way: the oldest one that has its answer, else the oldest one that has not sent a whole request. `None`: there is neither.
    fn evict(&self) -> Option<Stage> {
        let mut taken = self.taken.borrow_mut();
        let oldest = |stage| taken.iter().position(|taken| taken.stage == stage);
        let index = oldest(Stage::Closing).or_else(|| oldest(Stage::Reading))?;
        let Taken { stage, evict, .. } = taken.remove(index)?;
        // One that ends at this very moment needs no word.
        let _ = evict.send(());
        Some(stage)
    }
}

impl Place {
    pub(super) fn enter(&mut self, stage: Stage) {
        let mut taken = self.places.taken.borrow_mut();
        if let Some(taken) = taken.iter_mut().find(|taken| taken.number == self.number) {
            taken.stage = stage;
        }
        self.places.changed.notify_one();
    }

    /// Comes back when the connection has to give way.
    pub(super) async fn evicted(&mut self) {
        // Its place is taken away with a word only.
        let _ = (&mut self.evicted).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.borrow_mut().retain(|taken| taken.number != self.number);
        self.places.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, ready};

    use super::*;

    fn block_on(future: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
    }

    /// What a future has to say at once.
    async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            value = future => Some(value),
            () = ready(()) => None,
        }
    }

    #[test]
    fn the_oldest_that_does_not_use_its_place_gives_way() {
        block_on(async {
            let places = Rc::new(Places::default());
            let mut all = Vec::new();
            for _ in 0..PLACES {
                let (place, evicted) = now(places.take()).await.unwrap();
                assert_eq!(evicted, None);
                all.push(place);
            }
            all[0].enter(Stage::Answering);
            let (_new, evicted) = now(places.take()).await.unwrap();
            assert_eq!(evicted, Some(Stage::Reading));
            assert!(now(all[0].evicted()).await.is_none());
            assert!(now(all[1].evicted()).await.is_some());
            // One that has its answer loses nothing: it is the first to go.
            all[7].enter(Stage::Closing);
            let (_newer, evicted) = now(places.take()).await.unwrap();
            assert_eq!(evicted, Some(Stage::Closing));
            assert!(now(all[7].evicted()).await.is_some());
            assert!(now(all[2].evicted()).await.is_none());
        });
    }

    #[test]
    fn those_that_are_being_answered_are_not_cut() {
        block_on(async {
            let places = Rc::new(Places::default());
            let mut all = Vec::new();
            for _ in 0..PLACES {
                let (mut place, _) = now(places.take()).await.unwrap();
                place.enter(Stage::Answering);
                all.push(place);
            }
            assert!(now(places.take()).await.is_none());
            all[3].enter(Stage::Closing);
            let (_new, evicted) = now(places.take()).await.unwrap();
            assert_eq!(evicted, Some(Stage::Closing));
            // A place that is evicted is no longer one that can be given back.
            drop(all.remove(3));
            let (mut newer, evicted) = now(places.take()).await.unwrap();
            assert_eq!(evicted, Some(Stage::Reading));
            newer.enter(Stage::Answering);
            assert!(now(places.take()).await.is_none());
            drop(all.remove(0));
            assert_eq!(now(places.take()).await.unwrap().1, None);
        });
    }
}
