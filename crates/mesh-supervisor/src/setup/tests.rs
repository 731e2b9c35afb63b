//! The data partition, with e2fsprogs on files in place of a card.
