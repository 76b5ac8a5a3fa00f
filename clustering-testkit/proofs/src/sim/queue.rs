use std::{cmp::Reverse, collections::BinaryHeap};

use clustering_testkit::history::Moment;

/// Future events in the order of their times. Events at the same time are in the order of insertion.
#[derive(Debug)]
pub(super) struct Queue<T> {
    order: BinaryHeap<Reverse<(Moment, u64, usize)>>,
    items: Vec<Option<T>>,
    free: Vec<usize>,
    numbered: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Queue { order: BinaryHeap::new(), items: Vec::new(), free: Vec::new(), numbered: 0 }
    }

    pub(super) fn push(&mut self, at: Moment, item: T) {
        let place = match self.free.pop() {
            Some(place) => {
                self.items[place] = Some(item);
                place
            }
            None => {
                self.items.push(Some(item));
                self.items.len() - 1
            }
        };
        self.numbered += 1;
        self.order.push(Reverse((at, self.numbered, place)));
    }

    pub(super) fn next_at(&self) -> Option<Moment> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop(&mut self) -> Option<(Moment, T)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        Some((at, self.items[place].take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_insertion() {
        let at = Moment::from_nanos;
        let mut queue = Queue::new();
        for (time, item) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.push(at(time), item);
        }
        assert_eq!((queue.next_at(), queue.pop()), (Some(at(1)), Some((at(1), 'a'))));
        queue.push(at(5), 'e');
        let rest: Vec<char> = std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect();
        assert_eq!(rest, ['b', 'c', 'd', 'e']);
    }
}
