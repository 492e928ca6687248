//! Finds the route of a path: a trie over segments that are split before they are decoded.
//!
//! The most specific template wins, segment by segment from the left: a literal before `*`, `*` before `**`, and that as short as
//! it can be. A template whose methods do not fit gives way to a less specific one, and only if none fits is the method not allowed. A verb that is registered for
//! the path always wins over a value that contains a colon.
use std::{borrow::Cow, collections::HashMap};

use http::Method;

use super::{
    percent::{self, Part},
    template::{Segment, Template},
};

/// Values by method and path template.
pub struct Router<T> {
    root: Node<T>,
}

struct Node<T> {
    literals: HashMap<String, Node<T>>,
    one: Option<Box<Node<T>>>,
    rest: Option<Box<Node<T>>>,
    leaves: Vec<Leaf<T>>,
}

struct Leaf<T> {
    verb: Option<String>,
    method: Method,
    value: T,
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<'r, T> {
    Route(&'r T),
    /// Sorted by name; HEAD stands for GET too, and OPTIONS is always there.
    MethodNotAllowed(Vec<Method>),
    NotFound,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: HashMap::new(), one: None, rest: None, leaves: Vec::new() }
    }
}

impl<T> Router<T> {
    /// Adds a route. Gives back the value that is there already under the same normalised template, verb and method.
    pub fn insert(&mut self, template: &Template, method: Method, value: T) -> Result<(), &T> {
        let mut node = &mut self.root;
        for segment in &template.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::One => node.one.get_or_insert_default(),
                Segment::Rest => node.rest.get_or_insert_default(),
            };
        }
        let same = |leaf: &Leaf<T>| leaf.verb == template.verb && leaf.method == method;
        if let Some(index) = node.leaves.iter().position(same) {
            return Err(&node.leaves[index].value);
        }
        node.leaves.push(Leaf { verb: template.verb.clone(), method, value });
        Ok(())
    }

    /// Finds the route of a raw path.
    pub fn find(&self, method: &Method, path: &str) -> Outcome<'_, T> {
        let Some(mut segments) = split(path) else { return Outcome::NotFound };
        let whole = segments.last().copied();
        let mut search = Search { method, verb: None, allow: Vec::new() };

        if let Some((last, (value, verb))) = segments.last_mut().zip(whole.and_then(|last| last.rsplit_once(':'))) {
            *last = value;
            search.verb = Some(verb);
            if let Some(value) = search.walk(&self.root, &decode(&segments)) {
                return Outcome::Route(value);
            }
        }
        if search.allow.is_empty() {
            search.verb = None;
            if let Some((last, whole)) = segments.last_mut().zip(whole) {
                *last = whole;
            }
            if let Some(value) = search.walk(&self.root, &decode(&segments)) {
                return Outcome::Route(value);
            }
        }
        if search.allow.is_empty() { Outcome::NotFound } else { Outcome::MethodNotAllowed(search.allowed()) }
    }
}

/// The raw segments of a path; none if it does not start with a slash.
pub fn split(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_prefix('/')?;
    if path.is_empty() { Some(Vec::new()) } else { Some(path.split('/').collect()) }
}

/// A malformed escape stays as it is: it equals no literal, and is refused when it is captured.
fn decode<'p>(segments: &[&'p str]) -> Vec<Cow<'p, str>> {
    let decode = |raw: &&'p str| percent::decode(raw, Part::Segment).unwrap_or(Cow::Borrowed(*raw));
    segments.iter().map(decode).collect()
}

struct Search<'p> {
    method: &'p Method,
    verb: Option<&'p str>,
    allow: Vec<Method>,
}

impl Search<'_> {
    /// As deep as the longest template, and as long as the path times the templates with `**` at most.
    fn walk<'r, T>(&mut self, node: &'r Node<T>, segments: &[Cow<'_, str>]) -> Option<&'r T> {
        match segments.split_first() {
            None => {
                if let Some(value) = self.leaf(node) {
                    return Some(value);
                }
            }
            Some((first, tail)) => {
                let literal = node.literals.get(first.as_ref());
                let one = node.one.as_deref().filter(|_| !first.is_empty());
                for next in literal.into_iter().chain(one) {
                    if let Some(value) = self.walk(next, tail) {
                        return Some(value);
                    }
                }
            }
        }
        let rest = node.rest.as_deref()?;
        (0..=segments.len()).find_map(|skipped| self.walk(rest, &segments[skipped..]))
    }

    fn leaf<'r, T>(&mut self, node: &'r Node<T>) -> Option<&'r T> {
        let leaves = || node.leaves.iter().filter(|leaf| leaf.verb.as_deref() == self.verb);
        let by = |method: &Method| leaves().find(|leaf| leaf.method == *method).map(|leaf| &leaf.value);
        let found = by(self.method).or_else(|| if self.method == Method::HEAD { by(&Method::GET) } else { None });
        if found.is_none() {
            self.allow.extend(
                node.leaves.iter().filter(|leaf| leaf.verb.as_deref() == self.verb).map(|leaf| leaf.method.clone()),
            );
        }
        found
    }

    fn allowed(mut self) -> Vec<Method> {
        if self.allow.contains(&Method::GET) {
            self.allow.push(Method::HEAD);
        }
        self.allow.push(Method::OPTIONS);
        self.allow.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        self.allow.dedup();
        self.allow
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compile(table: &[(&str, &str)]) -> Router<String> {
        let mut router = Router::default();
        for (method, template) in table {
            router.insert(&template.parse().unwrap(), method.parse().unwrap(), format!("{method} {template}")).unwrap();
        }
        router
    }

    #[track_caller]
    fn leads(table: &[(&str, &str)], request: &str, expected: &str) {
        let router = compile(table);
        let (method, path) = request.split_once(' ').unwrap();
        let found = match router.find(&method.parse().unwrap(), path) {
            Outcome::Route(route) => route.clone(),
            Outcome::MethodNotAllowed(allow) => allow.iter().map(Method::as_str).collect::<Vec<_>>().join(","),
            Outcome::NotFound => String::new(),
        };
        assert_eq!(found, expected, "{request}");
    }

    #[test]
    fn the_most_specific_template_wins_whatever_the_order() {
        let routes = [("GET", "/v/**"), ("GET", "/v/{id}"), ("GET", "/v/me"), ("GET", "/{a}/me")];
        for routes in [routes, [routes[3], routes[2], routes[1], routes[0]]] {
            leads(&routes, "GET /v/me", "GET /v/me");
            leads(&routes, "GET /v/you", "GET /v/{id}");
            leads(&routes, "GET /v/you/too", "GET /v/**");
            leads(&routes, "GET /v", "GET /v/**");
            leads(&routes, "GET /w/me", "GET /{a}/me");
            leads(&routes, "GET /w/you", "");
        }
    }

    #[test]
    fn a_method_that_does_not_fit_gives_way_to_a_less_specific_template() {
        let routes = [("GET", "/v/me"), ("POST", "/v/{id}"), ("PUT", "/v/**"), ("DELETE", "/{x=**}")];
        leads(&routes, "GET /v/me", "GET /v/me");
        leads(&routes, "POST /v/me", "POST /v/{id}");
        leads(&routes, "PUT /v/me", "PUT /v/**");
        leads(&routes, "DELETE /v/me", "DELETE /{x=**}");
        leads(&routes, "PATCH /v/me", "DELETE,GET,HEAD,OPTIONS,POST,PUT");
        leads(&routes, "OPTIONS /v/you", "DELETE,OPTIONS,POST,PUT");
    }

    #[test]
    fn head_is_served_by_get_unless_it_has_a_route() {
        leads(&[("GET", "/a")], "HEAD /a", "GET /a");
        leads(&[("GET", "/a"), ("HEAD", "/a")], "HEAD /a", "HEAD /a");
        leads(&[("POST", "/a")], "HEAD /a", "OPTIONS,POST");
    }

    #[test]
    fn a_registered_verb_wins_and_another_stays_in_the_value() {
        let routes = [("GET", "/items/{id}"), ("POST", "/items/{id}:move"), ("GET", "/items:search")];
        leads(&routes, "GET /items/a:b", "GET /items/{id}");
        leads(&routes, "GET /items/:b", "GET /items/{id}");
        leads(&routes, "POST /items/a:move", "POST /items/{id}:move");
        leads(&routes, "POST /items/a:b:move", "POST /items/{id}:move");
        leads(&routes, "GET /items/a:move", "OPTIONS,POST");
        leads(&routes, "GET /items:search", "GET /items:search");
        leads(&routes, "GET /items:searches", "");
        leads(&routes, "POST /items/a%3Amove", "GET,HEAD,OPTIONS");
        leads(&routes, "GET /items/a%3Amove", "GET /items/{id}");
        leads(&routes, "POST /items/:move", "GET,HEAD,OPTIONS");
    }

    #[test]
    fn a_verb_after_two_stars_is_found_behind_every_prefix() {
        let routes = [("POST", "/{x=**}:run"), ("GET", "/a/b/{c}"), ("GET", "/{x=**}/tail")];
        leads(&routes, "POST /a/b/c:run", "POST /{x=**}:run");
        leads(&routes, "POST /z:run", "POST /{x=**}:run");
        leads(&routes, "POST /a:run/b", "");
        leads(&routes, "GET /tail", "GET /{x=**}/tail");
        leads(&routes, "GET /1/2/tail", "GET /{x=**}/tail");
        leads(&routes, "GET /tail/tail", "GET /{x=**}/tail");
        leads(&routes, "GET /a/b/tail", "GET /a/b/{c}");
    }

    #[test]
    fn segments_are_split_before_they_are_decoded() {
        let routes = [("GET", "/a/{b}"), ("GET", "/a/b/c"), ("GET", "/")];
        leads(&routes, "GET /a/b%2Fc", "GET /a/{b}");
        leads(&routes, "GET /%61/b/%63", "GET /a/b/c");
        leads(&routes, "GET /a/%zz", "GET /a/{b}");
        leads(&routes, "GET /", "GET /");
        leads(&routes, "GET /a/", "");
        leads(&routes, "GET //", "");
        leads(&routes, "GET a/b", "");
        leads(&routes, "OPTIONS *", "");
    }

    #[test]
    fn the_same_normalised_route_cannot_be_added_twice() {
        let mut router = compile(&[("GET", "/a/{b}/{c=**}:run")]);
        let twin: Template = "/a/*/{d.e=**}:run".parse().unwrap();
        assert_eq!(router.insert(&twin, Method::GET, String::new()).unwrap_err(), "GET /a/{b}/{c=**}:run");
        router.insert(&twin, Method::POST, String::new()).unwrap();
        router.insert(&"/a/*/**".parse().unwrap(), Method::GET, String::new()).unwrap();
    }

    /// Does a template match a path, tried without a trie; if so, by which segments, most specific smallest.
    fn matches(segments: &[Segment], path: &[&str]) -> Option<Vec<u8>> {
        let with = |rank: u8, tail: Option<Vec<u8>>| tail.map(|tail| [&[rank][..], &tail].concat());
        match segments.split_first() {
            None => path.is_empty().then(|| vec![0]),
            Some((Segment::Rest, tail)) => {
                let shortest = |skip: u8| Some([&[2, skip][..], &matches(tail, &path[usize::from(skip)..])?].concat());
                (0..=u8::try_from(path.len()).unwrap()).find_map(shortest)
            }
            Some((segment, tail)) => {
                let (first, after) = path.split_first()?;
                let (fits, rank) = match segment {
                    Segment::Literal(text) => (text == first, 0),
                    _ => (!first.is_empty(), 1),
                };
                if fits { with(rank, matches(tail, after)) } else { None }
            }
        }
    }

    fn model<'r>(routes: &'r [(Method, Template)], method: &Method, path: &str) -> Result<Option<&'r Template>, bool> {
        let segments = split(path).unwrap();
        let fitting = |verb: Option<&str>, segments: &[&str]| {
            let fits = |(_, template): &&'r (Method, Template)| template.verb.as_deref() == verb;
            let ranked = |route: &'r (Method, Template)| Some((matches(&route.1.segments, segments)?, route));
            routes.iter().filter(fits).filter_map(ranked).collect::<Vec<_>>()
        };
        let verb = segments.last().and_then(|last| last.rsplit_once(':'));
        let with_verb = verb.map_or_else(Vec::new, |(value, verb)| {
            fitting(Some(verb), &[&segments[..segments.len() - 1], &[value]].concat())
        });
        let candidates = if with_verb.is_empty() { fitting(None, &segments) } else { with_verb };
        let best = candidates.iter().filter(|(_, (of, _))| of == method).min_by(|a, b| a.0.cmp(&b.0));
        match best {
            Some((_, (_, template))) => Ok(Some(template)),
            None if candidates.is_empty() => Ok(None),
            None => Err(true),
        }
    }

    fn routes() -> impl Strategy<Value = Vec<(Method, Template)>> {
        let segment = prop_oneof![3 => "[ab]", 2 => Just("*".to_owned()), 1 => Just("**".to_owned())];
        let template = (prop::collection::vec(segment, 0..4), prop::option::of("[ab]")).prop_filter_map(
            "two `**`",
            |(parts, verb)| {
                let verb = verb.map_or_else(String::new, |verb| format!(":{verb}"));
                format!("/{}{verb}", parts.join("/")).parse::<Template>().ok()
            },
        );
        let method = prop_oneof![Just(Method::GET), Just(Method::POST)];
        prop::collection::vec((method, template), 0..12)
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_trying_every_template(
            routes in routes(),
            paths in prop::collection::vec("/[ab/]{0,5}(:[ab]){0,2}", 1..8),
            method in prop_oneof![Just(Method::GET), Just(Method::POST)],
        ) {
            let mut router = Router::default();
            let routes: Vec<_> = routes
                .into_iter()
                .filter(|(method, template)| router.insert(template, method.clone(), template.clone()).is_ok())
                .collect();
            for path in paths {
                let found = match router.find(&method, &path) {
                    Outcome::Route(template) => Ok(Some(template)),
                    Outcome::MethodNotAllowed(_) => Err(true),
                    Outcome::NotFound => Ok(None),
                };
                prop_assert_eq!(found, model(&routes, &method, &path), "{} {}", method, path);
            }
        }
    }
}
