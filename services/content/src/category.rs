//! Categories: a tree, held as a whole while it is changed, for most of its rules are about more than one category.

use std::collections::HashMap;
use std::iter;

use ids::CategoryId;

use crate::name::Name;
use crate::revision::Revision;
use crate::slug::Slug;

/// The most categories.
pub const MAX_CATEGORIES: usize = 1_000;

/// The most categories from a root to a leaf.
pub const MAX_DEPTH: usize = 8;

/// The most bytes of names, slugs and descriptions together: the whole tree is one answer, which must fit into a message of 4 MiB.
pub const MAX_BYTES: usize = 3_000_000;

/// A category.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    /// The category's id.
    pub id: CategoryId,
    /// The category that it is in; `None` for a root.
    pub parent: Option<CategoryId>,
    /// Told apart from its siblings by it.
    pub name: Name,
    /// The last part of its address. Belongs to no other category.
    pub slug: Slug,
    /// What it is for.
    pub description: String,
    /// Counts the changes of the categories below it too, with which it is shown.
    pub revision: Revision,
}

impl Category {
    fn bytes(&self) -> usize {
        self.name.as_str().len() + self.slug.as_str().len() + self.description.len()
    }
}

/// What the tree does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such parent")]
    NoParent,
    #[error("the category would be below itself")]
    Cycle,
    #[error("there can be {MAX_CATEGORIES} categories")]
    TooMany,
    #[error("categories can be {MAX_DEPTH} deep")]
    TooDeep,
    #[error("all categories together can have {MAX_BYTES} bytes of text")]
    TooLong,
    #[error("a sibling has that name")]
    NameTaken,
    #[error("another category has that slug")]
    SlugTaken,
    #[error("the category contains others")]
    NotEmpty,
}

/// All categories.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    categories: HashMap<CategoryId, Category>,
}

impl Tree {
    /// The category of that id.
    pub fn get(&self, id: CategoryId) -> Option<&Category> {
        self.categories.get(&id)
    }

    /// What is directly below `parent`, or the roots, by name.
    pub fn children(&self, parent: Option<CategoryId>) -> Vec<&Category> {
        let mut children: Vec<_> = self.categories.values().filter(|category| category.parent == parent).collect();
        children.sort_by_cached_key(|category| (category.name.key(), category.id));
        children
    }

    /// `id` and all that it is in, up to the root.
    pub fn path(&self, id: CategoryId) -> impl Iterator<Item = CategoryId> {
        iter::successors(Some(id), |id| self.get(*id)?.parent).take(MAX_DEPTH)
    }

    /// Puts a category into the tree, instead of the one of the same id if there is one: it may be new, changed or moved.
    pub fn put(&mut self, category: Category) -> Result<(), Error> {
        self.check_place(&category)?;
        self.check_text(&category)?;
        self.categories.insert(category.id, category);
        Ok(())
    }

    fn check_place(&self, category: &Category) -> Result<(), Error> {
        let Category { id, parent, .. } = *category;
        if !self.categories.contains_key(&id) && self.categories.len() >= MAX_CATEGORIES {
            return Err(Error::TooMany);
        }
        let Some(parent) = parent else { return Ok(()) };
        if !self.categories.contains_key(&parent) {
            return Err(Error::NoParent);
        }
        if self.path(parent).any(|above| above == id) {
            return Err(Error::Cycle);
        }
        if self.path(parent).count() + self.height(id) > MAX_DEPTH { Err(Error::TooDeep) } else { Ok(()) }
    }

    fn check_text(&self, category: &Category) -> Result<(), Error> {
        let key = category.name.key();
        let mut bytes = category.bytes();
        for other in self.categories.values().filter(|other| other.id != category.id) {
            if other.slug == category.slug {
                return Err(Error::SlugTaken);
            }
            if other.parent == category.parent && other.name.key() == key {
                return Err(Error::NameTaken);
            }
            bytes += other.bytes();
        }
        if bytes > MAX_BYTES { Err(Error::TooLong) } else { Ok(()) }
    }

    /// Takes a category out that contains no others.
    pub fn remove(&mut self, id: CategoryId) -> Result<(), Error> {
        if self.height(id) > 1 {
            return Err(Error::NotEmpty);
        }
        self.categories.remove(&id);
        Ok(())
    }

    /// The slug for the category `id`, with the first number that makes it unique if another has it.
    pub fn free_slug(&self, wish: &Slug, id: CategoryId) -> Slug {
        let is_free = |slug: &Slug| !self.categories.values().any(|other| other.slug == *slug && other.id != id);
        if is_free(wish) {
            return wish.clone();
        }
        (2..=u32::MAX)
            .map(|number| wish.numbered(number))
            .find(is_free)
            .expect("there are more numbers than categories")
    }

    /// How many categories stand one below the other, from `id` to the deepest below it; 1 for one that is not in the tree yet.
    fn height(&self, id: CategoryId) -> usize {
        let distances = self.categories.keys().filter_map(|below| self.path(*below).position(|above| above == id));
        distances.max().map_or(1, |deepest| deepest + 1)
    }
}

/// Categories that were put into the tree before they were stored.
impl FromIterator<Category> for Tree {
    fn from_iter<I: IntoIterator<Item = Category>>(stored: I) -> Self {
        Self { categories: stored.into_iter().map(|category| (category.id, category)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use ids::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> CategoryId {
        format!("00000000-0000-7000-8000-{number:012}").parse().unwrap()
    }

    fn category(number: usize, parent: Option<usize>) -> Category {
        Category {
            id: id(number),
            parent: parent.map(id),
            name: Name::parse(&format!("Category {number}")).unwrap(),
            slug: Slug::parse(&format!("category-{number}")).unwrap(),
            description: String::new(),
            revision: Revision::first(Timestamp::EPOCH),
        }
    }

    /// One below the other, from 0.
    fn chain(length: usize) -> Tree {
        (0..length).map(|number| category(number, number.checked_sub(1))).collect()
    }

    fn names(categories: &[&Category]) -> Vec<String> {
        categories.iter().map(|category| category.name.to_string()).collect()
    }

    #[test]
    fn children_are_ordered_by_name_whatever_its_case() {
        let mut tree = Tree::default();
        for (number, name) in ["beta", "Alpha", "가", "alpine"].into_iter().enumerate() {
            tree.put(Category { name: Name::parse(name).unwrap(), ..category(number, None) }).unwrap();
        }
        tree.put(category(9, Some(0))).unwrap();
        assert_eq!(names(&tree.children(None)), ["Alpha", "alpine", "beta", "가"]);
        assert_eq!(names(&tree.children(Some(id(0)))), ["Category 9"]);
        assert_eq!(tree.path(id(9)).collect::<Vec<_>>(), [id(9), id(0)]);
    }

    #[test]
    fn siblings_differ_in_their_names_and_all_in_their_slugs() {
        let mut tree = chain(2);
        let named =
            |number, parent, name: &str| Category { name: Name::parse(name).unwrap(), ..category(number, parent) };
        assert_eq!(tree.put(named(2, None, "CATEGORY  0")), Err(Error::NameTaken));
        assert_eq!(tree.put(named(2, Some(0), "category 0")), Ok(()));
        assert_eq!(
            tree.put(Category { slug: Slug::parse("category-1").unwrap(), ..category(3, None) }),
            Err(Error::SlugTaken)
        );
        assert_eq!(tree.put(category(2, None)), Ok(()));
        assert_eq!(tree.free_slug(&Slug::parse("category 1").unwrap(), id(2)).as_str(), "category-1-2");
        assert_eq!(tree.free_slug(&Slug::parse("category 1").unwrap(), id(1)).as_str(), "category-1");
    }

    #[test]
    fn the_tree_has_bounds() {
        let mut tree = chain(MAX_DEPTH);
        assert_eq!(tree.put(category(100, Some(MAX_DEPTH - 1))), Err(Error::TooDeep));
        assert_eq!(tree.put(category(100, None)), Ok(()));
        // With all that is below it, it would be too deep there.
        assert_eq!(tree.put(category(0, Some(100))), Err(Error::TooDeep));
        assert_eq!(tree.put(category(1, None)), Ok(()));
        assert_eq!(tree.put(category(0, Some(100))), Ok(()));

        let long = |number| Category { description: "x".repeat(MAX_BYTES / 2), ..category(number, None) };
        assert_eq!(tree.put(long(101)), Ok(()));
        assert_eq!(tree.put(long(102)), Err(Error::TooLong));

        let mut full: Tree = (0..MAX_CATEGORIES).map(|number| category(number, None)).collect();
        assert_eq!(full.put(category(MAX_CATEGORIES, None)), Err(Error::TooMany));
        assert_eq!(full.put(category(1, Some(0))), Ok(()));
    }

    #[test]
    fn only_what_contains_nothing_is_removed() {
        let mut tree = chain(2);
        assert_eq!(tree.remove(id(0)), Err(Error::NotEmpty));
        assert_eq!(tree.remove(id(1)), Ok(()));
        assert_eq!(tree.remove(id(0)), Ok(()));
        assert_eq!(tree.get(id(0)), None);
    }

    proptest! {
        /// Against a model that moves first and looks for circles afterwards.
        #[test]
        fn moving_never_makes_a_circle_and_refuses_nothing_else(
            moves in prop::collection::vec((0..12_usize, prop::option::of(0..12_usize)), 0..60),
        ) {
            let mut tree: Tree = (0..12).map(|number| category(number, None)).collect();
            let mut model: [Option<usize>; 12] = [None; 12];
            for (number, parent) in moves {
                let mut moved = model;
                moved[number] = parent;
                let depth = |start: usize| iter::successors(Some(start), |at| moved[*at]).take(100).count();
                let deepest = (0..12).map(depth).max().unwrap_or(0);
                let outcome = tree.put(category(number, parent));
                match deepest {
                    100 => prop_assert_eq!(outcome, Err(Error::Cycle)),
                    0..=MAX_DEPTH => {
                        prop_assert_eq!(outcome, Ok(()));
                        model = moved;
                    }
                    _ => prop_assert_eq!(outcome, Err(Error::TooDeep)),
                }
                for (number, parent) in model.iter().enumerate() {
                    prop_assert_eq!(tree.get(id(number)).unwrap().parent, parent.map(id));
                }
            }
        }
    }
}
