//! The signals that end a program, as something to wait for: no handler runs while the program
//! works.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use super::check;

/// Each of them ends a program in order: a terminal that is closed, Ctrl-C, Ctrl-\ and kill(1).
const ENDS: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];
/// How a shell names an end by a signal: this and the signal's number.
const SIGNAL_EXIT: libc::c_int = 128;

/// A signal that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub number: libc::c_int,
    /// The kernel sent it, such as a terminal's Ctrl-C, which its whole foreground group gets; else
    /// a process did.
    pub by_kernel: bool,
}

/// SIGHUP, SIGINT, SIGQUIT and SIGTERM, without SIGHUP where it is ignored.
///
/// nohup(1) ignores SIGHUP so that a program outlives its terminal, and that is respected. An
/// ignored SIGINT or SIGQUIT is not: a shell without job control ignores both for whatever it
/// starts in the background (POSIX, Shell Command Language, 2.11), and whoever sends one there
/// means it.
///
/// # Errors
/// None that is known: the kernel refuses only wrong numbers.
pub fn ends() -> io::Result<Vec<libc::c_int>> {
    let is_nohup = is_ignored(libc::SIGHUP)?;
    Ok(ENDS.into_iter().filter(|number| !(is_nohup && *number == libc::SIGHUP)).collect())
}

/// The end of a program by signals: the first one ends it in order, the second one at once.
///
/// From [`Shutdown::begin`] on the signals of [`ends`] wait to be taken. Once the end has begun,
/// for whatever reason, [`Shutdown::end_at_once`] lets the next one end the process, wherever it
/// is: also in a write that nobody reads.
#[derive(Debug)]
pub struct Shutdown(OwnedFd);

impl Shutdown {
    /// Blocks the signals in the calling thread and in the threads that it starts from now on: call
    /// it in the main thread, before there are others, and after whatever may wait without end,
    /// such as opening a pipe. A program that it starts has them blocked as well, unless
    /// [`super::inherited::spawn`] starts it.
    ///
    /// SIGXFSZ is blocked too, so that a write beyond the limit of a file's size (`ulimit -f`) is
    /// an error and not the end.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn begin() -> io::Result<Self> {
        Self::with(&[])
    }

    /// As [`Shutdown::begin`]; `others` are taken as well.
    ///
    /// # Errors
    /// As [`Shutdown::begin`].
    pub fn with(others: &[libc::c_int]) -> io::Result<Self> {
        let mut numbers = ends()?;
        numbers.extend(others);
        change_mask(libc::SIG_BLOCK, &set_of(&[libc::SIGXFSZ])?)?;
        let set = set_of(&numbers)?;
        change_mask(libc::SIG_BLOCK, &set)?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: reads an initialised set; the descriptor is fresh and owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(check(libc::signalfd(-1, &raw const set, flags))?) }))
    }

    /// One that has come and was not taken yet. Never blocks.
    ///
    /// # Errors
    /// None that is known.
    pub fn take(&self) -> io::Result<Option<Taken>> {
        let Some(info) = read(&self.0)? else { return Ok(None) };
        let by_kernel = info.ssi_code == libc::SI_KERNEL;
        Ok(Some(Taken { number: info.ssi_signo.cast_signed(), by_kernel }))
    }

    /// The end has begun: from here on a signal of [`ends`] ends the process at once, with exit
    /// code 128 and the signal's number. One that waits to be taken does so now. Call it in the
    /// thread that called [`Shutdown::begin`].
    ///
    /// # Errors
    /// None that is known.
    pub fn end_at_once(&self) -> io::Result<()> {
        let numbers = ends()?;
        for number in &numbers {
            handle(*number)?;
        }
        change_mask(libc::SIG_UNBLOCK, &set_of(&numbers)?)
    }
}

impl AsFd for Shutdown {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Shutdown {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

extern "C" fn exit_now(number: libc::c_int) {
    // SAFETY: made for signal handlers (man 7 signal-safety), and takes no pointer.
    unsafe { libc::_exit(SIGNAL_EXIT + number) }
}

fn handle(number: libc::c_int) -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros are a valid value; what it points to is a function that may run at any time
    // in any thread.
    unsafe {
        (*action.as_mut_ptr()).sa_sigaction = exit_now as extern "C" fn(libc::c_int) as usize;
        check(libc::sigaction(number, action.as_ptr(), std::ptr::null_mut())).map(drop)
    }
}

fn is_ignored(number: libc::c_int) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: changes nothing; the kernel fills the structure, of which all zeros are a valid
    // value.
    let action = unsafe {
        check(libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()))?;
        action.assume_init()
    };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

fn set_of(numbers: &[libc::c_int]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, the rest changes it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for number in numbers {
            check(libc::sigaddset(set.as_mut_ptr(), *number))?;
        }
        Ok(set.assume_init())
    }
}

/// In the calling thread.
fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: reads an initialised set.
    match unsafe { libc::pthread_sigmask(how, std::ptr::from_ref(set), std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn read(fd: &OwnedFd) -> io::Result<Option<libc::signalfd_siginfo>> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    // SAFETY: the buffer has the size that is given; all zeros are a valid value of it.
    let (count, info) = unsafe {
        let size = size_of::<libc::signalfd_siginfo>();
        let count = libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size);
        (count, info.assume_init())
    };
    if count >= 0 {
        return Ok(Some(info));
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_taken_once() {
        // In a thread of its own: the mask is the thread's, and other tests must keep theirs.
        std::thread::spawn(|| {
            let shutdown = Shutdown::begin().unwrap();
            assert_eq!(shutdown.take().unwrap(), None);
            for number in ends().unwrap() {
                // SAFETY: sends a blocked signal to the calling thread alone.
                unsafe { libc::pthread_kill(libc::pthread_self(), number) };
                assert_eq!(shutdown.take().unwrap().unwrap().number, number);
                assert_eq!(shutdown.take().unwrap(), None);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn others_are_taken_too_with_who_sent_them() {
        std::thread::spawn(|| {
            let shutdown = Shutdown::with(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
            // SAFETY: sends a blocked signal to the calling thread alone.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
            let taken = Taken { number: libc::SIGUSR2, by_kernel: false };
            assert_eq!(shutdown.take().unwrap(), Some(taken));
            assert_eq!(shutdown.take().unwrap(), None);
        })
        .join()
        .unwrap();
    }
}
