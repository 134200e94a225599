//! The end of a tenant: its tokens are worth nothing first, then its jobs end, then everything goes that it had. A deletion that a crash cuts short
//! goes on at the next start.

use std::sync::Arc;

use millstream_model::{ErrorKind, ids::TenantId};

use super::{Jobs, prepare::hidden_key};
use crate::{
    catalogue::objects::Job,
    failure::Failure,
    tenants::{InUse, Tenants},
};

impl Jobs {
    /// Deletes a tenant.
    ///
    /// # Errors
    /// There is none; it still has jobs or components and nobody said that they may go; or the disk fails: then it is gone for everybody but the disk,
    /// and the rest goes at the next start.
    pub async fn delete_tenant(self: &Arc<Self>, tenants: &Tenants, tenant: &TenantId, with_contents: bool) -> Result<(), Failure> {
        let InUse { jobs, component_bytes, .. } = tenants.in_use(tenant).await?;
        if (jobs > 0 || component_bytes > 0) && !with_contents {
            tenants.get(tenant).await?;
            let components = crate::text::size(component_bytes);
            return Err(Failure::new(
                ErrorKind::Conflict,
                format!("tenant `{tenant}` still has {jobs} jobs and {components} of components"),
            )
            .fix("delete them first, or say that they go with it: ?contents=delete"));
        }
        tenants.leave(tenant).await?;
        self.finish_leaving(tenants, tenant).await
    }

    /// Goes on with the deletion of a tenant that is nobody's any more.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn finish_leaving(self: &Arc<Self>, tenants: &Tenants, tenant: &TenantId) -> Result<(), Failure> {
        for job in self.store.list::<Job>(tenant, None, usize::MAX).await? {
            let (runner, _turn) = self.hold(tenant, &job.name).await;
            runner.cancel().await;
            self.forget_runner(tenant, &job.name);
            self.hidden.forget(&hidden_key(tenant, &job.name));
        }
        self.components.delete_all(tenant).await?;
        self.end_workshop(tenant).await;
        match std::fs::remove_dir_all(self.workshops.jobs_of(tenant)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(
                    Failure::new(ErrorKind::Unavailable, format!("the jobs of tenant `{tenant}` cannot be removed")).because(&error)
                );
            }
            _ => {}
        }
        self.events.forget(tenant);
        tenants.forget(tenant).await
    }
}
