"""A check of our own: `default` admits the statuses that it lists, and no others."""

import schemathesis


@schemathesis.check
def status_is_listed(ctx, response, case):
    listed = case.operation.schema.raw_schema["components"]["responses"]["Problem"]["x-statuses"]
    described = case.operation.definition.raw["responses"]
    status = response.status_code
    assert str(status) in described or status in listed, f"{status} is neither described here nor listed under default"
