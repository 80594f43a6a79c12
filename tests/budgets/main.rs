//! Budgets from outside: the binary, a model that counts what it is asked, and every budget with a control that shows the call
//! beyond it being made where the budget is one more.

mod day;
mod house;
mod limits;
mod model;
mod shown;
