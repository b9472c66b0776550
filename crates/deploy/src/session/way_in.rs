//! What Azure says about machines that do not answer.

use super::{Session, SessionError, failed, teardown::subscription};
use crate::{
    azure::{Call, Ids, Inventory},
    deployment::Deployment,
};

impl Session {
    /// What there is of a cluster in Azure; nothing if Azure has not made its machines.
    pub async fn inventory(&self, deployment: &Deployment, call: Call) -> Result<Option<Inventory>, SessionError> {
        if !deployment.topology.provider.makes_machines() {
            return Ok(None);
        }
        let arm = self.arm(&deployment.config);
        let ids = Ids::new(subscription(&arm, call).await?, &deployment.topology.names.resource_group);
        Inventory::take(&arm, &ids, call).await.map(Some).map_err(failed)
    }
}
