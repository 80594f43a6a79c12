//! STUB for the http helper; thrown away at merge.
#![allow(missing_docs, clippy::unused_async, clippy::missing_errors_doc)]

use super::api::*;
use duragent_core::event::{TurnReason, Usage};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Clone, Default)]
pub struct AgentInfo {
    pub name: String,
    pub description: String,
    pub model: String,
    pub provider: String,
    pub tools: Vec<String>,
    pub error: Option<String>,
}
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub agent: Option<String>,
    pub status: Option<Status>,
    pub limit: usize,
    pub after: Option<String>,
}
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub sessions_live: u64,
    pub turns_started: u64,
    pub turns_finished: u64,
    pub model_calls: u64,
    pub tool_calls: u64,
    pub commits: u64,
    pub events: u64,
}

#[derive(Clone, Default)]
pub struct Runtime(Arc<Mutex<State>>);
#[derive(Default)]
struct State {
    sessions: BTreeMap<String, Session>,
    down: bool,
}
struct Session {
    summary: Summary,
    lines: Vec<Arc<Published>>,
    live: Vec<smol::channel::Sender<Arc<Published>>>,
    keys: BTreeMap<String, Accepted>,
    open: Option<u64>,
    approval: Option<Approval>,
}
pub struct Follow {
    backlog: VecDeque<Arc<Published>>,
    live: smol::channel::Receiver<Arc<Published>>,
}
impl Follow {
    pub async fn next(&mut self) -> Option<Arc<Published>> {
        match self.backlog.pop_front() {
            Some(item) => Some(item),
            None => self.live.recv().await.ok(),
        }
    }
}
impl Session {
    fn push(&mut self, kind: &str, rest: &str) -> u64 {
        let seq = self.lines.len() as u64 + 1;
        self.summary.last_seq = seq;
        let line = format!(
            "{{\"seq\":{seq},\"at\":\"2026-11-22T10:00:00.123Z\",\"type\":\"{kind}\"{rest},\"crc\":\"00000000\"}}"
        );
        let item = Arc::new(Published::Event { seq, kind: kind.into(), line });
        self.lines.push(item.clone());
        self.live.retain(|l| l.try_send(item.clone()).is_ok());
        seq
    }
    fn finish(&mut self, turn: u64, reason: &str) {
        let token = Arc::new(Published::Token { turn, step: 1, text: "hé\n".into(), thinking: false });
        self.live.retain(|l| l.try_send(token.clone()).is_ok());
        self.push("turn_finished", &format!(",\"turn\":{turn},\"reason\":\"{reason}\""));
        self.open = None;
    }
}
impl Runtime {
    fn with<T>(&self, id: &str, f: impl FnOnce(&mut Session) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f(state.sessions.get_mut(id).ok_or_else(|| ApiError::NotFound(format!("no session {id:?}")))?)
    }
    pub fn agents(&self) -> Vec<AgentInfo> {
        vec![AgentInfo {
            name: "assistant".into(),
            model: "m".into(),
            provider: "p".into(),
            tools: vec!["bash".into()],
            ..AgentInfo::default()
        }]
    }
    pub async fn create(&self, new: NewSession) -> Result<Summary, ApiError> {
        if new.agent != "assistant" {
            return Err(ApiError::NotFound(format!("no agent {:?}", new.agent)));
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = new.id.unwrap_or_else(|| format!("s{}", state.sessions.len() + 1));
        if state.sessions.contains_key(&id) {
            return Err(ApiError::Conflict(format!("session {id:?} exists")));
        }
        let summary = Summary {
            id: id.clone(),
            agent: new.agent,
            title: new.title,
            status: Status::Idle,
            created_at_ms: 1_795_341_600_123,
            last_at_ms: 1_795_341_600_123,
            last_seq: 0,
            turns: 0,
            usage: Usage::default(),
            context_tokens: 0,
            detail: None,
        };
        let mut session =
            Session { summary, lines: vec![], live: vec![], keys: BTreeMap::new(), open: None, approval: None };
        session.push("session_created", &format!(",\"v\":1,\"session\":\"{id}\""));
        let summary = session.summary.clone();
        state.sessions.insert(id, session);
        Ok(summary)
    }
    pub async fn sessions(&self, filter: &Filter) -> Result<Vec<Summary>, ApiError> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(state
            .sessions
            .values()
            .map(|s| s.summary.clone())
            .filter(|s| {
                filter.agent.as_ref().is_none_or(|a| *a == s.agent)
                    && filter.status.is_none_or(|f| f == s.status)
                    && filter.after.as_ref().is_none_or(|a| s.id > *a)
            })
            .take(filter.limit)
            .collect())
    }
    pub async fn session(&self, id: &str) -> Result<Summary, ApiError> {
        self.with(id, |s| Ok(s.summary.clone()))
    }
    pub async fn close(&self, id: &str, _by: &str) -> Result<Summary, ApiError> {
        self.with(id, |s| {
            s.summary.status = Status::Closed;
            s.push("session_closed", "");
            Ok(s.summary.clone())
        })
    }
    pub async fn send(&self, id: &str, message: NewMessage) -> Result<Accepted, ApiError> {
        self.with(id, |s| {
            if s.summary.status == Status::Closed {
                return Err(ApiError::Conflict("session is closed".into()));
            }
            if let Some(known) = message.idempotency_key.as_ref().and_then(|k| s.keys.get(k)) {
                return Ok(*known);
            }
            s.summary.turns += 1;
            let turn = s.summary.turns;
            let mut content = String::new();
            duragent_core::json::write_string(&mut content, &message.content);
            let seq = s.push("message_received", &format!(",\"turn\":{turn},\"content\":{content}"));
            s.push("turn_started", &format!(",\"turn\":{turn}"));
            s.open = Some(turn);
            let accepted = Accepted { seq, turn };
            if let Some(key) = message.idempotency_key {
                s.keys.insert(key, accepted);
            }
            match message.content.as_str() {
                "slow" => {}
                "approve" => {
                    s.approval = Some(Approval {
                        approval_id: "ap-1".into(),
                        call_id: "c1".into(),
                        name: "bash".into(),
                        arguments: "{\"command\":\"ls\"}".into(),
                        digest: "00".into(),
                        expires_at_ms: 1_795_341_600_123,
                    })
                }
                _ => s.finish(turn, "completed"),
            }
            Ok(accepted)
        })
    }
    pub async fn turn_result(&self, id: &str, turn: u64) -> Result<TurnResult, ApiError> {
        let mut follow = self.follow(id, 0).await?;
        while let Some(item) = follow.next().await {
            if let Published::Event { kind, line, .. } = &*item
                && kind == "turn_finished"
                && line.contains(&format!("\"turn\":{turn},"))
            {
                return Ok(TurnResult {
                    turn,
                    reason: TurnReason::Completed,
                    detail: None,
                    reply: "hi".into(),
                    usage: Usage { input_tokens: 1, output_tokens: 2 },
                });
            }
        }
        Err(ApiError::Internal("gone".into()))
    }
    pub async fn follow(&self, id: &str, after: u64) -> Result<Follow, ApiError> {
        self.with(id, |s| {
            let (tx, live) = smol::channel::bounded(100);
            s.live.push(tx);
            let backlog = s.lines.iter().skip(usize::try_from(after).unwrap_or(usize::MAX)).cloned().collect();
            Ok(Follow { backlog, live })
        })
    }
    pub async fn events(&self, id: &str, after: u64, limit: usize) -> Result<EventPage, ApiError> {
        self.with(id, |s| {
            let rest: Vec<_> = s.lines.iter().skip(usize::try_from(after).unwrap_or(usize::MAX)).collect();
            let lines: Vec<Arc<str>> = rest
                .iter()
                .take(limit)
                .filter_map(|p| match &***p {
                    Published::Event { line, .. } => Some(Arc::from(line.as_str())),
                    _ => None,
                })
                .collect();
            let next = (rest.len() > limit).then(|| after + limit as u64);
            Ok(EventPage { lines, next })
        })
    }
    pub async fn messages(&self, id: &str) -> Result<String, ApiError> {
        self.with(id, |_| Ok("[{\"role\":\"user\",\"content\":\"hi\"}]".into()))
    }
    pub async fn cancel(&self, id: &str) -> Result<Option<u64>, ApiError> {
        self.with(id, |s| {
            let open = s.open;
            if let Some(turn) = open {
                s.finish(turn, "cancelled");
            }
            Ok(open)
        })
    }
    pub async fn fork(&self, id: &str, _seq: Option<u64>) -> Result<Summary, ApiError> {
        let agent = self.session(id).await?.agent;
        self.create(NewSession { agent, ..NewSession::default() }).await
    }
    pub async fn export(&self, id: &str) -> Result<String, ApiError> {
        let page = self.events(id, 0, usize::MAX).await?;
        Ok(page.lines.iter().flat_map(|l| [l, "\n"]).collect())
    }
    pub async fn approvals(&self, id: &str) -> Result<Vec<Approval>, ApiError> {
        self.with(id, |s| Ok(s.approval.iter().cloned().collect()))
    }
    pub async fn decide(&self, id: &str, approval_id: &str, _verdict: Verdict) -> Result<(), ApiError> {
        self.with(id, |s| match s.approval.take() {
            Some(a) if a.approval_id == approval_id => {
                let turn = s.summary.turns;
                s.finish(turn, "completed");
                Ok(())
            }
            _ if approval_id == "ap-1" => Err(ApiError::Conflict("approval \"ap-1\" was decided before".into())),
            _ => Err(ApiError::NotFound(format!("no approval {approval_id:?}"))),
        })
    }
    pub fn is_ready(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).down
    }
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
    pub async fn reload(&self) -> Result<(), ApiError> {
        Ok(())
    }
    pub fn shutdown(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.down = true;
        for session in state.sessions.values_mut() {
            for live in session.live.drain(..) {
                let _ = live.try_send(Arc::new(Published::Shutdown));
            }
        }
    }
}
