//! The comments of a contract, where its descriptors carry them.
use std::collections::HashMap;

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};

/// Leading comments by file and place.
pub struct Comments(HashMap<(String, Vec<i32>), String>);

impl Comments {
    pub fn of(pool: &DescriptorPool) -> Self {
        let mut comments = HashMap::new();
        for file in pool.files() {
            let Some(source) = &file.file_descriptor_proto().source_code_info else { continue };
            for location in &source.location {
                let text = clean(location.leading_comments());
                if !text.is_empty() {
                    comments.insert((file.name().to_owned(), location.path.clone()), text);
                }
            }
        }
        Self(comments)
    }

    fn at(&self, file: &FileDescriptor, path: &[i32]) -> String {
        self.0.get(&(file.name().to_owned(), path.to_vec())).cloned().unwrap_or_default()
    }

    pub fn of_service(&self, service: &ServiceDescriptor) -> String {
        self.at(&service.parent_file(), service.path())
    }

    pub fn of_method(&self, method: &MethodDescriptor) -> String {
        self.at(&method.parent_file(), method.path())
    }

    pub fn of_message(&self, message: &MessageDescriptor) -> String {
        self.at(&message.parent_file(), message.path())
    }

    pub fn of_field(&self, field: &FieldDescriptor) -> String {
        self.at(&field.parent_file(), field.path())
    }

    /// An enum's comment, and those of its values as a list.
    pub fn of_enum(&self, kind: &EnumDescriptor) -> String {
        let file = kind.parent_file();
        let mut text = self.at(&file, kind.path());
        for value in kind.values() {
            let comment = self.at(&file, value.path());
            if !comment.is_empty() {
                let gap = if text.is_empty() { "" } else { "\n" };
                text.extend([gap, "- `", value.name(), "`: ", &comment]);
            }
        }
        text
    }
}

/// The first sentence, without its full stop.
pub fn summary(comment: &str) -> &str {
    let paragraph = comment.split("\n\n").next().unwrap_or_default();
    let sentence = paragraph.split_once(". ").map_or(paragraph, |(first, _)| first);
    sentence.strip_suffix('.').unwrap_or(sentence)
}

/// Joins the lines of a paragraph, and keeps paragraphs apart.
fn clean(comment: &str) -> String {
    let mut text = String::with_capacity(comment.len());
    for line in comment.lines().map(str::trim) {
        match (line.is_empty(), text.is_empty() || text.ends_with('\n')) {
            (true, false) => text.push_str("\n\n"),
            (false, false) => {
                text.push(' ');
                text.push_str(line);
            }
            (_, true) => text.push_str(line),
        }
    }
    text.trim_end().to_owned()
}
