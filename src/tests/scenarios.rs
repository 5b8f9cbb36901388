//! Short stories with one outcome each.
