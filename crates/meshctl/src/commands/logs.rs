//! `logs`.

use mesh_ipc::supervisor::{SupervisorRequest, SupervisorResponse};

use crate::cli::{Args, Context};
use crate::client::{PATIENCE, Service};
use crate::failure::Failure;
use crate::json::Json;
use crate::out::Out;
use crate::table::clean;

pub(crate) fn logs(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let lines = match args.text("--lines") {
        None => 100,
        Some(n) => n.parse().map_err(|_| Failure::Usage(format!("--lines needs a number, not {n:?}")))?,
    };
    let log = fetch(ctx, args.operand(0)?, lines)?;
    if ctx.json {
        return out.line(&Json::from(log.as_slice()).to_string());
    }
    log.iter().try_for_each(|l| out.line(&clean(l)))
}

/// The last lines of a service, or of all if `service` is empty.
pub(crate) fn fetch(ctx: &Context, service: &str, lines: u32) -> Result<Vec<String>, Failure> {
    let mut supervisor: Service<SupervisorRequest, SupervisorResponse> =
        Service::connect(&ctx.run_dir, "mesh-supervisor", PATIENCE)?;
    match supervisor.request(SupervisorRequest::Log { service: service.to_owned(), lines })? {
        SupervisorResponse::Log(lines) => Ok(lines),
        _ => Err(supervisor.odd()),
    }
}
