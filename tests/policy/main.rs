//! Policy: what rules see through and what they do not (`corpus/`), what tags hold back, and approvals from the request to the
//! call, through the real binary.

mod corpus;
