//! The store's side of its files: the writer, what it has made durable, and what it has to say.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use crate::{
    log::seal::{BlockId, Sealed, TableId},
    snapshot::{
        disk::{Disk, OldFile, failed, reads::Reader},
        export::{ExportForm, Exported},
        format::segment_path,
        inline::InlineWriter,
        restore::Source,
        segment::Segment,
        thread::Writer,
        writer::{Command, DurableSegment, Event, StoreSettings, WriterCore},
    },
    state::StateError,
};

/// Bytes of what a seal is owed that are copied before somebody else has a turn: some fifty microseconds.
const STEP_BYTES: usize = 128 << 10;

/// Where a store keeps its files, and who writes them.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The store's own directory; made when it is first needed.
    pub directory: PathBuf,
    /// A random number that no other store has.
    pub store: u128,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Called on the writer's thread when it has something to say, if anybody wants to know.
    pub notify: Option<Notify>,
    /// Who writes.
    pub writer: WriterKind,
}

/// Who writes the files of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterKind {
    /// A thread of its own, off the data core.
    Thread,
    /// The store's owner, where it asks for it: for tests.
    Here,
    /// The store's owner, but some polls later, and what became of it is heard later still: for simulation, where all that a
    /// thread could do has to happen in an order that repeats. `notify` is called as long as something is under way. What a seal
    /// is owed is copied in the smallest steps.
    Late {
        /// What the delays are drawn from.
        seed: u64,
    },
}

/// A function that is called when there is news.
#[derive(Clone)]
pub struct Notify(pub Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Notify {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Notify")
    }
}

/// What became of a snapshot.
#[derive(Debug)]
pub enum SnapshotEvent {
    /// It is durable.
    Done {
        /// Its number.
        snapshot: u64,
        /// Its manifest.
        manifest: PathBuf,
        /// Bytes written for it.
        bytes_written: u64,
    },
    /// It was exported.
    Exported {
        /// Its number.
        snapshot: u64,
        /// What was done.
        exported: Exported,
    },
    /// It could not be made or exported. The store is as healthy as before.
    Failed {
        /// Its number.
        snapshot: u64,
        /// Why.
        error: StateError,
    },
}

impl SnapshotEvent {
    /// The manifest of what was made or exported.
    ///
    /// # Errors
    /// Why it could not be.
    pub fn manifest(self) -> Result<PathBuf, StateError> {
        match self {
            Self::Done { manifest, .. } => Ok(manifest),
            Self::Exported { exported, .. } => Ok(exported.manifest),
            Self::Failed { error, .. } => Err(error),
        }
    }
}

/// A file that records are read from while they are not in memory.
pub struct ColdFile {
    /// The file.
    pub file: Box<dyn OldFile>,
    /// Its path, for errors.
    pub path: PathBuf,
    /// Checksums of its pages.
    pub checksums: Arc<[u32]>,
}

/// Bytes of a block that are durable.
#[derive(Clone)]
pub struct DurablePart {
    /// Whose.
    pub block: BlockId,
    /// Where in the block they begin, in bytes.
    pub from: u32,
    /// Where they end.
    pub to: u32,
    /// The file that they are in.
    pub file: Rc<ColdFile>,
    /// Where in it.
    pub offset: u64,
}

enum End {
    Thread(Writer),
    Here(Box<InlineWriter>),
}

/// The files of one store.
pub struct Files {
    options: Option<FileOptions>,
    settings: StoreSettings,
    end: Option<End>,
    /// Of the tables that want to know.
    durable: HashMap<TableId, Vec<DurablePart>>,
    news: u64,
    snapshots: VecDeque<SnapshotEvent>,
    /// Spills that were asked for and not yet answered.
    pub(crate) spills: usize,
    failed: Option<StateError>,
    /// Segments that were taken over, until the first snapshot.
    adopted: HashMap<u64, Rc<ColdFile>>,
    /// Reads many cold records at once.
    pub(crate) reader: Reader,
}

impl Files {
    /// No files yet, for these key groups.
    pub fn new(
        options: Option<FileOptions>,
        key_groups: std::ops::Range<u32>,
        max_parallelism: u32,
        waste_bytes_max: u64,
    ) -> Self {
        let settings = StoreSettings {
            directory: options.as_ref().map(|own| own.directory.clone()).unwrap_or_default(),
            store: options.as_ref().map_or(0, |own| own.store),
            key_groups,
            max_parallelism,
            waste_bytes_max,
        };
        Self {
            options,
            settings,
            end: None,
            durable: HashMap::new(),
            news: 0,
            snapshots: VecDeque::new(),
            spills: 0,
            failed: None,
            adopted: HashMap::new(),
            reader: Reader::default(),
        }
    }

    /// Whether there is a place for files.
    pub fn exist(&self) -> bool {
        self.options.is_some()
    }

    /// Takes over the segments of these parts, of each all or none: of those that it does their numbers in this store.
    ///
    /// # Errors
    /// When the directory cannot be taken.
    pub(crate) fn adopt(&mut self, parts: &[&[Arc<Source>]]) -> Result<Vec<Option<Vec<u64>>>, StateError> {
        let mut numbers = Vec::new();
        self.open(|core| numbers.extend(parts.iter().map(|part| core.adopt(part))))?;
        Ok(numbers)
    }

    /// Makes the directory and the writer if they are not there yet.
    ///
    /// # Errors
    /// When the directory cannot be taken.
    pub fn start(&mut self) -> Result<(), StateError> {
        self.end().map(drop)
    }

    fn end(&mut self) -> Result<&mut End, StateError> {
        if self.end.is_none() {
            self.open(|_| {})?;
        }
        match &mut self.end {
            Some(end) => Ok(end),
            None => unreachable!("the writer was just made"),
        }
    }

    /// Makes the writer; `prepare` has it before it begins.
    fn open(&mut self, prepare: impl FnOnce(&mut WriterCore)) -> Result<(), StateError> {
        let Some(options) = &self.options else {
            return Err(StateError::NoDirectory);
        };
        let mut core = WriterCore::open(Arc::clone(&options.disk), self.settings.clone())?;
        prepare(&mut core);
        let inline = |core, late_by| End::Here(Box::new(InlineWriter::new(core, late_by)));
        self.end = Some(match options.writer {
            WriterKind::Thread => {
                let notify = options.notify.clone();
                End::Thread(Writer::run(core, move || notify.iter().for_each(|notify| (notify.0)()))?)
            }
            WriterKind::Here => inline(core, None),
            WriterKind::Late { seed } => inline(core, Some(seed)),
        });
        Ok(())
    }

    /// The file of a segment that was taken over, to read cold records from.
    ///
    /// # Errors
    /// Of the disk.
    pub(crate) fn adopted_file(
        &mut self,
        number: u64,
        segment: &Segment,
    ) -> Result<Rc<ColdFile>, StateError> {
        if let Some(file) = self.adopted.get(&number) {
            return Ok(Rc::clone(file));
        }
        let Some(options) = &self.options else { return Err(StateError::NoDirectory) };
        let path = segment_path(&options.directory, number);
        let file = options.disk.open_direct(&path).map_err(failed("open", &path))?;
        let file = Rc::new(ColdFile { file, path, checksums: segment.pages.as_slice().into() });
        self.adopted.insert(number, Rc::clone(&file));
        Ok(file)
    }

    fn send(&mut self, command: Command) -> Result<(), StateError> {
        match self.end()? {
            End::Thread(writer) => writer.send(command),
            End::Here(writer) => {
                writer.send(command);
                Ok(())
            }
        }
    }

    /// Asks for a seal to be made durable.
    ///
    /// # Errors
    /// When the directory cannot be taken or the writer is gone.
    pub fn spill(&mut self, seal: u64, sealed: Sealed) -> Result<(), StateError> {
        self.send(Command::Spill { seal, sealed })?;
        self.spills += 1;
        Ok(())
    }

    /// Asks for a snapshot.
    ///
    /// # Errors
    /// As [`spill`](Self::spill).
    pub fn snapshot(&mut self, snapshot: u64, seal: u64, sealed: Sealed) -> Result<(), StateError> {
        self.adopted = HashMap::new();
        self.send(Command::Snapshot { snapshot, seal, sealed })
    }

    /// Forgets a snapshot.
    ///
    /// # Errors
    /// As [`spill`](Self::spill).
    pub fn release(&mut self, snapshot: u64) -> Result<(), StateError> {
        self.send(Command::Release { snapshot })
    }

    /// Asks for a snapshot to be brought to another directory.
    ///
    /// # Errors
    /// As [`spill`](Self::spill).
    pub fn export(&mut self, snapshot: u64, directory: PathBuf, form: ExportForm) -> Result<(), StateError> {
        self.send(Command::Export { snapshot, directory, form })
    }

    /// Takes note of what the writer has done; with `wait`, of one thing at least if anything is under way.
    ///
    /// # Errors
    /// When a spill failed, or the writer is gone: state outgrows its memory, and the job has to stop.
    pub fn poll(&mut self, wait: bool) -> Result<(), StateError> {
        let mut wait = wait && self.spills > 0;
        loop {
            let event = match &mut self.end {
                None => None,
                Some(End::Here(writer)) if wait => writer.wait(),
                Some(End::Here(writer)) => writer.poll(),
                Some(End::Thread(writer)) if wait => Some(writer.wait()?),
                Some(End::Thread(writer)) => writer.poll()?,
            };
            wait = false;
            match event {
                Some(event) => self.note(event)?,
                None => break,
            }
        }
        // A writer that is late gets on when it is polled, and nobody else would see to that.
        if matches!(&self.end, Some(End::Here(writer)) if writer.is_busy()) {
            self.ask_for_poll();
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Waits until the writer has something to say; something must be under way.
    ///
    /// # Errors
    /// When the writer is gone.
    pub fn wait(&mut self) -> Result<(), StateError> {
        let event = match &mut self.end {
            None => None,
            Some(End::Here(writer)) => writer.wait(),
            Some(End::Thread(writer)) => Some(writer.wait()?),
        };
        event.map_or(Ok(()), |event| self.note(event))
    }

    /// Bytes of what a seal is owed that are copied at once.
    pub(crate) fn step_bytes(&self) -> usize {
        let is_late = self.options.as_ref().is_some_and(|own| matches!(own.writer, WriterKind::Late { .. }));
        if is_late { 1 } else { STEP_BYTES }
    }

    /// Has somebody ask again what has happened.
    pub(crate) fn ask_for_poll(&self) {
        let notify = self.options.as_ref().and_then(|options| options.notify.as_ref());
        notify.into_iter().for_each(|notify| (notify.0)());
    }

    /// The next [poll](Self::poll) says what went wrong.
    pub(crate) fn fail(&mut self, error: StateError) {
        self.failed = Some(error);
    }

    fn note(&mut self, event: Event) -> Result<(), StateError> {
        match event {
            Event::Durable(segment) => self.note_durable(segment),
            Event::SnapshotDone { snapshot, manifest, bytes_written, .. } => {
                self.snapshots.push_back(SnapshotEvent::Done { snapshot, manifest, bytes_written });
            }
            Event::Exported { snapshot, exported } => {
                self.snapshots.push_back(SnapshotEvent::Exported { snapshot, exported });
            }
            Event::Released { .. } => {}
            Event::Failed { snapshot: Some(snapshot), error } => {
                self.snapshots.push_back(SnapshotEvent::Failed { snapshot, error });
            }
            Event::Failed { snapshot: None, error } => {
                self.spills = 0;
                self.failed = Some(error);
            }
        }
        Ok(())
    }

    fn note_durable(&mut self, segment: DurableSegment) {
        self.spills = self.spills.saturating_sub(1);
        self.news += 1;
        if self.durable.is_empty() {
            return;
        }
        let DurableSegment { file, path, page_checksums, .. } = segment;
        let file = Rc::new(ColdFile { file, path, checksums: page_checksums });
        for extent in segment.extents {
            let part = DurablePart {
                block: extent.block,
                from: extent.from,
                to: extent.to,
                file: Rc::clone(&file),
                offset: extent.file_offset,
            };
            if let Some(parts) = self.durable.get_mut(&extent.table) {
                parts.push(part);
            }
        }
    }

    /// What became durable of a table since it was asked last.
    pub fn take_durable(&mut self, table: TableId) -> Vec<DurablePart> {
        self.durable.get_mut(&table).map(std::mem::take).unwrap_or_default()
    }

    /// From now on takes note of what becomes durable of a table.
    pub fn watch(&mut self, table: TableId) {
        self.durable.insert(table, Vec::new());
    }

    /// How often something became durable: tells a table whether to ask.
    pub fn news(&self) -> u64 {
        self.news
    }

    /// Forgets a table.
    pub fn forget(&mut self, table: TableId) {
        self.durable.remove(&table);
    }

    /// The next thing to say about snapshots.
    pub fn next_snapshot_event(&mut self) -> Option<SnapshotEvent> {
        self.snapshots.pop_front()
    }
}
