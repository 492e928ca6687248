//! `guildhall.content.v1.CategoryService`.

use std::sync::Arc;

use ids::CategoryId;
use proto::category_service_server::CategoryService;
use tonic::{Request, Response, Status};

use super::{Content, Once, id, optional_id, person, proto};
use crate::category::{Category, Tree};
use crate::error::{Error, InField, Result};
use crate::name::Name;
use crate::revision::Revision;
use crate::slug::Slug;
use crate::{mask, store as tables};

const CREATE: &str = "/guildhall.content.v1.CategoryService/CreateCategory";

/// The fields that UpdateCategory can change.
const MUTABLE: [&str; 3] = ["name", "slug", "description"];

/// Serves the tree of categories.
pub struct Categories(pub Arc<Content>);

#[tonic::async_trait]
impl CategoryService for Categories {
    async fn get_category(
        &self,
        request: Request<proto::GetCategoryRequest>,
    ) -> Result<Response<proto::Category>, Status> {
        Ok(get(&self.0, &request.into_inner()).await?)
    }

    async fn list_categories(
        &self,
        _request: Request<proto::ListCategoriesRequest>,
    ) -> Result<Response<proto::ListCategoriesResponse>, Status> {
        Ok(list(&self.0).await?)
    }

    async fn create_category(
        &self,
        request: Request<proto::CreateCategoryRequest>,
    ) -> Result<Response<proto::Category>, Status> {
        Ok(create(&self.0, request).await?)
    }

    async fn update_category(
        &self,
        request: Request<proto::UpdateCategoryRequest>,
    ) -> Result<Response<proto::Category>, Status> {
        Ok(update(&self.0, request.into_inner()).await?)
    }

    async fn delete_category(&self, request: Request<proto::DeleteCategoryRequest>) -> Result<Response<()>, Status> {
        Ok(delete(&self.0, &request.into_inner()).await?)
    }

    async fn move_category(
        &self,
        request: Request<proto::MoveCategoryRequest>,
    ) -> Result<Response<proto::Category>, Status> {
        Ok(move_to(&self.0, &request.into_inner()).await?)
    }
}

async fn get(content: &Content, message: &proto::GetCategoryRequest) -> Result<Response<proto::Category>> {
    let tree = tables::category::tree(&mut content.db.read().await?).await?;
    let category = find(&tree, &message.category_id)?;
    Ok(Response::new(with_children(&tree, category)))
}

async fn list(content: &Content) -> Result<Response<proto::ListCategoriesResponse>> {
    let tree = tables::category::tree(&mut content.db.read().await?).await?;
    let roots = tree.children(None).into_iter();
    Ok(Response::new(proto::ListCategoriesResponse {
        categories: roots.map(|root| with_children(&tree, root)).collect(),
    }))
}

async fn create(
    content: &Content,
    request: Request<proto::CreateCategoryRequest>,
) -> Result<Response<proto::Category>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let once = Once::new(viewer, CREATE, &message.request_id, &message);
    let parent = optional_id(&message.parent_id, "parentId")?;
    let name = Name::parse(&message.name).in_field("name")?;

    let mut tx = content.db.begin().await?;
    if let Some(answer) = once.replay(&mut tx, &content.source).await? {
        return Ok(Response::new(answer));
    }
    let mut tree = tables::category::lock_tree(&mut tx).await?;
    let id = content.source.id();
    let slug = slug(&tree, id, &message.slug, &name, "slug")?;
    let revision = Revision::first(content.source.now());
    let category = Category { id, parent, name, slug, description: message.description, revision };
    tree.put(category.clone())?;
    tables::category::save(&mut tx, &category).await?;
    tables::category::advance(&mut tx, tree.path(id).skip(1)).await?;
    let answer = proto::Category::from(&category);
    once.remember(&mut tx, &content.source, &answer).await?;
    tx.commit().await?;
    Ok(Response::new(answer))
}

async fn update(content: &Content, message: proto::UpdateCategoryRequest) -> Result<Response<proto::Category>> {
    let given = message.category.unwrap_or_default();
    let fields = mask::fields(message.update_mask, &MUTABLE, |field| match field {
        "name" => !given.name.is_empty(),
        "slug" => !given.slug.is_empty(),
        _ => !given.description.is_empty(),
    })?;
    let mut tx = content.db.begin().await?;
    let mut tree = tables::category::lock_tree(&mut tx).await?;
    let before = find(&tree, &message.category_id)?.clone();
    before.revision.check(&given.etag)?;
    let mut category = before.clone();
    if fields.contains("name") {
        category.name = Name::parse(&given.name).in_field("category.name")?;
    }
    if fields.contains("slug") {
        category.slug = slug(&tree, category.id, &given.slug, &category.name, "category.slug")?;
    }
    if fields.contains("description") {
        category.description = given.description;
    }
    if category != before {
        category.revision.advance(content.source.now());
        tree.put(category.clone())?;
        tables::category::save(&mut tx, &category).await?;
        tables::category::advance(&mut tx, tree.path(category.id).skip(1)).await?;
        tx.commit().await?;
    }
    Ok(Response::new(with_children(&tree, &category)))
}

async fn delete(content: &Content, message: &proto::DeleteCategoryRequest) -> Result<Response<()>> {
    let mut tx = content.db.begin().await?;
    let mut tree = tables::category::lock_tree(&mut tx).await?;
    let category = find(&tree, &message.category_id)?.clone();
    category.revision.check(&message.etag)?;
    tables::category::advance(&mut tx, tree.path(category.id).skip(1)).await?;
    tree.remove(category.id)?;
    tables::category::delete(&mut tx, category.id).await?;
    tx.commit().await?;
    Ok(Response::new(()))
}

async fn move_to(content: &Content, message: &proto::MoveCategoryRequest) -> Result<Response<proto::Category>> {
    let parent = optional_id(&message.parent_id, "parentId")?;
    let mut tx = content.db.begin().await?;
    let mut tree = tables::category::lock_tree(&mut tx).await?;
    let mut category = find(&tree, &message.category_id)?.clone();
    category.revision.check(&message.etag)?;
    if category.parent != parent {
        tables::category::advance(&mut tx, tree.path(category.id).skip(1)).await?;
        category.parent = parent;
        category.revision.advance(content.source.now());
        tree.put(category.clone())?;
        tables::category::save(&mut tx, &category).await?;
        tables::category::advance(&mut tx, tree.path(category.id).skip(1)).await?;
        tx.commit().await?;
    }
    Ok(Response::new(with_children(&tree, &category)))
}

fn find<'a>(tree: &'a Tree, category_id: &str) -> Result<&'a Category> {
    let id: CategoryId = id(category_id, "categoryId")?;
    tree.get(id).ok_or(Error::Missing("category"))
}

/// The slug as it was given, or made from the name.
fn slug(tree: &Tree, id: CategoryId, given: &str, name: &Name, field: &str) -> Result<Slug> {
    if given.is_empty() {
        return Ok(tree.free_slug(&Slug::of_title(name.as_str(), "category"), id));
    }
    Slug::parse(given).in_field(field)
}

/// The category with all that is below it.
fn with_children(tree: &Tree, category: &Category) -> proto::Category {
    let children = tree.children(Some(category.id)).into_iter();
    proto::Category { children: children.map(|child| with_children(tree, child)).collect(), ..category.into() }
}

impl From<&Category> for proto::Category {
    fn from(category: &Category) -> Self {
        Self {
            id: category.id.to_string(),
            create_time: Some(category.revision.create_time.into()),
            update_time: Some(category.revision.update_time.into()),
            etag: category.revision.etag(),
            name: category.name.to_string(),
            slug: category.slug.to_string(),
            description: category.description.clone(),
            parent_id: category.parent.map(|id| id.to_string()).unwrap_or_default(),
            children: Vec::new(),
        }
    }
}
